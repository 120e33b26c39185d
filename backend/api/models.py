"""Who may call, whose jobs are whose, and which calls were repeated."""

from django.db import models

from telemetry.models import IngestJob


class ApiToken(models.Model):
    """A secret that somebody was given; only its hash is kept."""

    name = models.TextField(help_text="whose it is")
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
    """The upload that a client named by an Idempotency-Key: a second one of that name gets the first one's job."""

    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, db_index=False)
    key = models.TextField()
    fingerprint = models.BinaryField(max_length=32, help_text="SHA-256 of what was asked for, and of the body")
    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["token", "key"], name="api_keyed_upload_unique")]

    def __str__(self) -> str:
        return self.key


class TokenJob(models.Model):
    """Whose a job is: the token of the upload that made it. A job of the command line has none."""

    job = models.OneToOneField(IngestJob, on_delete=models.CASCADE, primary_key=True, related_name="token_job")
    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, related_name="jobs")

    def __str__(self) -> str:
        return f"job {self.job_id} of {self.token}"
