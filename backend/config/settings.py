"""Django's settings for the sandbox. Every value that differs between deployments comes from `config.env`."""

import secrets
from pathlib import Path

from config.database import (
    get_console_url,
    get_database_config,
    get_database_settings,
    get_fleet,
    get_pgbouncer_connections,
    should_use_pgbouncer,
)
from config.env import Database, Deployment, Https, Ingest, Monitor, Queue, Web, read

BASE_DIR = Path(__file__).resolve().parent.parent

deployment = read(Deployment)
ingest = read(Ingest)
monitor = read(Monitor)
https = read(Https)

SECRET_KEY = deployment.secret_key.get_secret_value()
DEBUG = deployment.debug
ALLOWED_HOSTS = deployment.allowed_hosts
DEFAULT_EXCEPTION_REPORTER_FILTER = "config.debug_page.PasswordFilter"

REQUIRE_HTTPS = deployment.django_env == "production" if https.require_https is None else https.require_https
CSRF_TRUSTED_ORIGINS = https.csrf_trusted_origins
if https.secure_proxy_ssl_header:
    SECURE_PROXY_SSL_HEADER = (f"HTTP_{https.secure_proxy_ssl_header.upper().replace('-', '_')}", "https")
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = REQUIRE_HTTPS
# Probes and Prometheus connect to the web directly, without the proxy.
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = https.secure_hsts_seconds if REQUIRE_HTTPS else 0
# includeSubDomains and preload affect other hosts of the domain, so its owner sets them in the proxy.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "ninja",  # serves the scripts of its API page from here instead of a CDN
    "poolhouse",
    "telemetry",
    "api",
    "lab",  # for its commands
]

MIDDLEWARE = [
    "poolhouse.middleware.DatabaseMiddleware",
    "api.middleware.api_middleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.unavailable.UnavailableMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

DATABASES = get_database_settings()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
# gunicorn serves the admin's files from their packages, so no collectstatic step is needed.
WHITENOISE_USE_FINDERS = True

BROKER_URL = read(Queue).url
WORKER_PROCESSES = read(Queue).worker_processes

POOLHOUSE = {
    "SERVICE": deployment.service_name,  # empty: depends on how the process was started
    "REDIS_URL": BROKER_URL,
    "PUBLISH_INTERVAL_S": deployment.poolhouse_publish_interval_s,
    "REPORT_TTL_S": deployment.poolhouse_report_ttl_s,
    "MONITOR_TIMEOUT_S": deployment.poolhouse_monitor_timeout_s,
    "LEAK_THRESHOLD_S": deployment.poolhouse_leak_threshold_s,
    "FLEET": get_fleet(),
    "SLOW_QUERY_MS": deployment.db_slow_query_ms,
    "SERVER_TIMING": deployment.django_env == "development",
    # An existing server does not have the monitor's role.
    "MONITOR_USER": "" if read(Database).database_url else monitor.db_monitor_user,
    "MONITOR_PASSWORD": monitor.db_monitor_pass.get_secret_value(),
    "DIRECT": {"default": get_database_config()} if should_use_pgbouncer() else {},
    # A random token denies access if none is set.
    "METRICS_TOKEN": monitor.metrics_token.get_secret_value() or secrets.token_hex(),
    "PGBOUNCER_URL": get_console_url(),
    "PGBOUNCER_CONNECTIONS": get_pgbouncer_connections(),
}

CELERY_APP = "config.celery.app"
CELERY_WORKER_RUNNING = deployment.celery_worker_running
READING_CHUNK_INTERVAL_HOURS = ingest.reading_chunk_interval_hours
INGEST_BATCH_ROWS = ingest.ingest_batch_rows
INGEST_RESEND_AFTER_S = ingest.ingest_resend_after_s
INGEST_TIME_LIMIT_S = ingest.ingest_time_limit_s
INGEST_MAX_ATTEMPTS = ingest.ingest_max_attempts
INGEST_RETRY_MAX_S = ingest.ingest_retry_max_s
INGEST_INPUT_GRACE_S = ingest.ingest_input_grace_s
INGEST_REJECTS_MAX_BYTES = ingest.ingest_rejects_max_bytes
INGEST_REJECTS_KEEP_S = ingest.ingest_rejects_keep_s
INGEST_UPLOAD_MAX_BYTES = ingest.ingest_upload_max_bytes
INGEST_UPLOAD_IDLE_S = ingest.ingest_upload_idle_s
INGEST_UPLOAD_MIN_BYTES_PER_S = ingest.ingest_upload_min_bytes_per_s
INGEST_UPLOAD_MAX_S = ingest.ingest_upload_max_s
INGEST_UPLOADS_AT_ONCE = read(Web).uploads_at_once
INGEST_TOKEN_SPOOL_BYTES = ingest.ingest_token_spool_bytes
INGEST_SPOOL_MIN_FREE_BYTES = ingest.ingest_spool_min_free_bytes
INGEST_CLEAN_INTERVAL_S = ingest.ingest_clean_interval_s
INGEST_CLEAN_AGE_S = ingest.ingest_clean_age_s
INGEST_MAX_UNFINISHED_BATCHES = ingest.ingest_max_unfinished_batches
INGEST_WORKER_MEMORY_BYTES = ingest.ingest_worker_memory_bytes
INGEST_SPOOL = ingest.ingest_spool

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "()": "poolhouse.logs.PlainFormatter",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "poolhouse.logs.JsonFormatter"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": deployment.log_format}},
    "root": {"handlers": ["console"], "level": deployment.log_level},
}
