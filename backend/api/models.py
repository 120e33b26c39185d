"""API tokens, the jobs that they created, and the uploads that carried an Idempotency-Key."""

from django.db import models

from telemetry.models import IngestJob


class ApiToken(models.Model):
    """A bearer token; only its hash is stored."""

    name = models.TextField(help_text="name of the token's owner")
    digest = models.BinaryField(unique=True, max_length=32, help_text="SHA-256 of the token")
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(revoked_at=None), name="api_token_one_valid_per_name"
            )
        ]

    def __str__(self) -> str:
        return self.name


class KeyedUpload(models.Model):
    """An upload with an Idempotency-Key; a repeated upload gets its job."""

    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, db_index=False)
    key = models.TextField()
    fingerprint = models.BinaryField(
        max_length=32, help_text="SHA-256 of the query string, the content headers and the body"
    )
    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["token", "key"], name="api_keyed_upload_unique")]

    def __str__(self) -> str:
        return self.key


class TokenJob(models.Model):
    """The token whose upload created a job. A job that was created on the command line has none."""

    job = models.OneToOneField(IngestJob, on_delete=models.CASCADE, primary_key=True, related_name="token_job")
    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, related_name="jobs")

    def __str__(self) -> str:
        return f"job {self.job_id} of {self.token}"
