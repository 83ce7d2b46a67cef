"""The one settings module; every knob comes from the environment (docs/reference/settings.md)."""

from __future__ import annotations

from pathlib import Path

from rlhf_platform import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent
#: Everything the platform writes: database, runs, caches, the embedded broker's log.
DATA_DIR = Path(env.text("DATA_DIR", str(BASE_DIR / "var"))).resolve()

DEBUG = env.flag("DEBUG")
SECRET_KEY = env.secret_key(DATA_DIR)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
#: True behind TLS: secure cookies, HSTS, redirect. The embedded default serves loopback only.
HTTPS = env.flag("HTTPS")

INSTALLED_APPS = [
    "rlhf_platform.accounts",
    "annotate",
    "training",
    "allauth",
    "allauth.account",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "django_htmx",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "rlhf_platform.accounts.middleware.WorkspaceMiddleware",
    "rlhf_platform.accounts.middleware.BodyLimitMiddleware",
]

ROOT_URLCONF = "rlhf_platform.urls"
WSGI_APPLICATION = "rlhf_platform.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "rlhf_platform.accounts.middleware.workspace_context",
            ],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        "django.template.loaders.filesystem.Loader",
                        "django.template.loaders.app_directories.Loader",
                    ],
                )
            ],
        },
    }
]

DATABASES = {
    "default": env.database(env.text("DATABASE_URL", f"sqlite:///{DATA_DIR / 'platform.sqlite3'}"))
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache_entries",
    },
    #: Model text as HTML, in each web process: asking the database costs more than rendering.
    "rendered": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "rendered",
        "TIMEOUT": None,
        "OPTIONS": {"MAX_ENTRIES": 2000},
    },
}

# People -----------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
ACCOUNT_ADAPTER = "rlhf_platform.accounts.adapter.ClosedSignupAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = {"login": "30/m/ip", "login_failed": "10/m/ip,5/5m/key"}
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

# Browser safety ---------------------------------------------------------------------------------
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_NAME = "__Host-session" if HTTPS else "session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024

# Language, time, static files --------------------------------------------------------------------
LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "rlhf_platform" / "static"]
WHITENOISE_USE_FINDERS = True

# API --------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    # The first one words the 401: a bearer token is what a stranger lacks.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rlhf_platform.accounts.tokens.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "rlhf_platform.api.problem_response",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Annotate and Align API",
    "DESCRIPTION": "Pairwise human judgments, snapshots, alignment rounds and model versions.",
    "VERSION": "1.0.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "ProjectKind": "annotate.models.Project.Kind",
        "QuestionWhether": "annotate.services.questions.WHETHER",
        "AnswerSide": "annotate.services.questions.SIDES",
        "FlagKind": "annotate.models.Flag.Kind",
        "ProjectState": "annotate.models.Project.State",
        "PromptSetUse": "annotate.models.PromptSet.Use",
        "RoundState": "training.models.Round.State",
        "RoundMethod": "training.models.Round.Method",
        "TextSetKind": "training.models.TextSet.Kind",
        "RunMethod": "training.models.Run.Method",
        "JobState": "training.models.Job.State",
        "JobKind": "training.models.Job.Kind",
        "JobQueue": "training.models.Job.Queue",
        "VersionKind": "training.models.ModelVersion.Kind",
        "VersionState": "training.models.ModelVersion.State",
    },
}
#: The most bytes a JSON body, and an uploaded file (through the API or a page), may have.
API_MAX_BODY_BYTES = 1024 * 1024
MAX_UPLOAD_BYTES = env.number("MAX_UPLOAD_MB", 256, minimum=1) * 1024 * 1024
#: Processes of the web that `manage.py up` starts, each with eight threads.
WEB_PROCESSES = env.number("WEB_PROCESSES", 2, minimum=1)

# Jobs -------------------------------------------------------------------------------------------
#: "embedded" (a Valkey of our own in DATA_DIR), redis://…, amqp://…, or "none" (workers poll).
BROKER_URL = env.text("BROKER_URL", "embedded")
#: Seconds a claimed job may go without a heartbeat before it counts as lost.
JOB_LEASE_S = env.number("JOB_LEASE_S", 30, minimum=2)
#: Comparisons that people have judged too before a machine's judgments may be trained on.
JUDGE_CALIBRATION_ROWS = env.number("JUDGE_CALIBRATION_ROWS", 100, minimum=20)
#: NAME=host:port: environment variables that hold a judge's key, and the one server each may go to.
#: A person who may name an address but not the key's place cannot have it sent elsewhere.
JUDGE_KEYS = env.words("JUDGE_KEYS")
#: Where comparisons keep the vectors of an index that asks for pgvector; their runs alone see it.
VECTORS_DATABASE_URL = env.text("VECTORS_DATABASE_URL")
#: Processor threads for one training run; part of its config, so that results repeat.
TRAINING_THREADS = env.number("TRAINING_THREADS", 2, minimum=1)
#: Days for which the checkpoints of runs that ended are kept; 0 keeps them for ever.
CHECKPOINT_KEEP_DAYS = env.number("CHECKPOINT_KEEP_DAYS", 7)
RUNS_DIR = DATA_DIR / "runs"
MODEL_CACHE_DIR = DATA_DIR / "models"

# Hub --------------------------------------------------------------------------------------------
PUBLIC_HUB = "https://huggingface.co"
HF_ENDPOINT = env.text("HF_ENDPOINT", PUBLIC_HUB).rstrip("/")
HF_TOKEN = env.text("HF_TOKEN")
#: host:port pairs that outgoing requests may reach although their address is private.
OUTGOING_ALLOW = env.words("OUTGOING_ALLOW")
#: Seconds that the other side of an outgoing request may be silent.
OUTGOING_TIMEOUT_S = env.number("OUTGOING_TIMEOUT_S", 60, minimum=1)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    # It logs every address it asks, and the Hub's upload links are signed: whoever reads one may
    # use it while it lasts.
    "loggers": {"httpx2": {"level": "WARNING"}},
}
