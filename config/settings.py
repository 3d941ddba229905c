"""Django settings, derived from `environment.Environment`. Wiring only."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from django.templatetags.static import static
from django.urls import reverse_lazy

from config.environment import BASE_DIR, Profile, read_environment
from config.navigation import ACCOUNT_LINKS, SIDEBAR

ENVIRONMENT = read_environment()
PRODUCTION = ENVIRONMENT.profile is Profile.PRODUCTION
TESTING = ENVIRONMENT.profile is Profile.TEST
DATA_DIR = ENVIRONMENT.made_data_dir()

DEBUG = ENVIRONMENT.debug
SECRET_KEY = ENVIRONMENT.django_secret_key()
ALLOWED_HOSTS = ENVIRONMENT.allowed_hosts
CSRF_TRUSTED_ORIGINS = ENVIRONMENT.csrf_trusted_origins

INSTALLED_APPS = [
    # The plain "unfold" configuration would replace our admin site.
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "unfold.contrib.inlines",
    "unfold.contrib.simple_history",
    "apps.console.admin_config.LockstepAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "simple_history",
    "django_otp",
    "axes",
    "drf_spectacular",
    "oauth2_provider",
    "apps.core",
    "apps.audit",
    "apps.accounts",
    "apps.encryption",
    "apps.sources",
    "apps.mappings",
    "apps.rules",
    "apps.ledger",
    "apps.runs",
    "apps.alerts",
    "apps.hub",
    "apps.api",
    "apps.console",
]

MIDDLEWARE = [
    "apps.core.middleware.SecurityHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "apps.audit.middleware.AuditMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "apps.accounts.middleware.SignInMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: refuses who has guessed too often
    "django.contrib.auth.backends.ModelBackend",
]
LOGIN_URL = reverse_lazy("admin:login")
LOGIN_REDIRECT_URL = reverse_lazy("admin:index")

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
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

DATABASES = {"default": ENVIRONMENT.django_database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
if TESTING:
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
    {"NAME": "apps.accounts.validators.AnotherPasswordValidator"},
]

LANGUAGE_CODE = "en"
TIME_ZONE = ENVIRONMENT.time_zone
USE_I18N = True
USE_TZ = True

# What no source may be made of, whoever adds it.
OWN_FILES = [
    DATA_DIR / name for name in ("lockstep.sqlite3", "secrets", "queue", "spill", "static")
]
OWN_FILES += [ENVIRONMENT.audit_checkpoints(), ENVIRONMENT.erasures()]
OWN_FILES += [
    path for path in (ENVIRONMENT.encryption_key_file, ENVIRONMENT.vault_token_file) if path
]

FILES_ROOTS = ENVIRONMENT.file_roots()
ALLOWED_NETWORKS = ENVIRONMENT.outbound_networks()
ALLOWED_PORTS = ENVIRONMENT.allowed_ports

STATIC_URL = "static/"
_SWAGGER = "drf_spectacular_sidecar/swagger-ui-dist"
STATICFILES_DIRS = [
    BASE_DIR / "static",
    # Of that package the one page that is used, not its other ones.
    (_SWAGGER, Path(find_spec("drf_spectacular_sidecar").origin).parent / "static" / _SWAGGER),
]
STATIC_ROOT = DATA_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "django.contrib.staticfiles.storage.StaticFilesStorage"
            if TESTING or DEBUG
            # Compressing everything takes longer than the rest of a first start.
            else "whitenoise.storage.CompressedManifestStaticFilesStorage"
            if PRODUCTION
            else "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
        )
    },
}

# What is sent is never put into a temporary file: no page takes files, and disks keep what was on
# them. A file beyond 2.5 MB is dropped.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

SESSION_ENGINE = "apps.accounts.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = int(ENVIRONMENT.session_hours * 3600)
SESSION_IDLE_SECONDS = int(ENVIRONMENT.session_idle_minutes * 60)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
WHITENOISE_ALLOW_ALL_ORIGINS = False
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    # Programs that speak HTTP are refused, not led on: they would never be put right.
    SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^api/", r"^oauth/(?!authorize)"]

AXES_HANDLER = "apps.accounts.locks.SignInHandler"
AXES_USERNAME_CALLABLE = "apps.accounts.locks.name_for_locks"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = ENVIRONMENT.sign_in_failures
AXES_COOLOFF_TIME = timedelta(minutes=ENVIRONMENT.sign_in_lock_minutes)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "apps.core.addresses.client_address"
AXES_LOCKOUT_CALLABLE = "apps.accounts.locks.locked_out"
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "code", "new_password1", "new_password2"]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.api.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["apps.api.authorization.ScopeAndPermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "apps.api.documenting.OperationSchema",
    "EXCEPTION_HANDLER": "apps.api.problems.answer",
    "URL_FORMAT_OVERRIDE": None,
}
OAUTH2_PROVIDER_APPLICATION_MODEL = "api.OAuthClient"
OAUTH2_PROVIDER = {
    "OAUTH2_VALIDATOR_CLASS": "apps.api.oauth.validator.StrictValidator",
    "SCOPES_BACKEND_CLASS": "apps.api.oauth.scopes.ClientScopes",
    "CLIENT_SECRET_GENERATOR_CLASS": "apps.api.oauth.secret_texts.ClientSecrets",  # nosec B105  # a name
    "ACCESS_TOKEN_GENERATOR": "apps.api.oauth.secret_texts.access_token",  # nosec B105  # a name
    "REFRESH_TOKEN_GENERATOR": "apps.api.oauth.secret_texts.refresh_token",  # nosec B105  # a name
    "DEFAULT_SCOPES": [],
    "AUTHORIZATION_CODE_EXPIRE_SECONDS": 60,
    "ACCESS_TOKEN_EXPIRE_SECONDS": 15 * 60,
    "REFRESH_TOKEN_EXPIRE_SECONDS": 30 * 24 * 3600,
    "ROTATE_REFRESH_TOKEN": True,  # nosec B105  # a setting
    "REFRESH_TOKEN_REUSE_PROTECTION": True,  # nosec B105  # a setting
    "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,  # nosec B105  # a setting
    "ALLOWED_REDIRECT_URI_SCHEMES": ["https"],
    "PKCE_REQUIRED": True,
    "OAUTH2_RESPONSE_TYPES_SUPPORTED": ["code"],
    "OAUTH2_GRANT_TYPES_SUPPORTED": [
        "authorization_code",
        "client_credentials",
        "refresh_token",
    ],
    **{
        f"COMPLIANT_BCP_RFC9700_{practice}": True
        for practice in (
            "ACCESS_TOKEN_TRANSPORT",
            "AUTHZ_RESPONSE_ISS",
            "IMPLICIT_GRANT",
            "PASSWORD_GRANT",
            "PKCE_METHOD",
            "PKCE_REQUIRED",
            "REDIRECT_URI_MATCHING",
            "REDIRECT_URI_SCHEME",
            "REFRESH_TOKEN",
            "TOKEN_STORAGE",
        )
    },
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Lockstep",
    "VERSION": "1",
    "DESCRIPTION": "Keeps the same records the same in every platform that holds them.",
    "OAS_VERSION": "3.1.0",
    "SERVERS": [{"url": "/", "description": "This installation"}],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": -1},
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_NO_READ_ONLY_REQUIRED": True,
    "ENFORCE_NON_BLANK_FIELDS": True,
    "ENUM_NAME_OVERRIDES": {
        "Cause": "apps.ledger.models.Change.Cause",
        "CheckKind": "apps.rules.models.Check.Kind",
        "ConflictKind": "apps.ledger.models.Conflict.Kind",
        "ConflictState": "apps.ledger.models.Conflict.State",
        "FieldPolicyName": "apps.rules.models.Policy",
        "Operation": "apps.ledger.models.Operation",
        "Outcome": "apps.audit.models.Outcome",
        "ChangeOutcome": "apps.ledger.models.Change.Outcome",
        "RejectionState": "apps.ledger.models.Rejection.State",
        "RulePolicyName": "apps.rules.models.two_way.WHOLE_RULE_POLICIES",
        "RunKind": "apps.runs.models.Run.Kind",
        "RunMode": "apps.runs.models.Run.Mode",
        "RunStatus": "apps.runs.models.RunStatus",
        "Side": "apps.ledger.models.Side",
        "StepStatus": "apps.api.serializers.sources.STEP_STATUSES",
        "UndoMode": "apps.api.serializers.runs.UNDO_MODES",
        "Winner": "apps.rules.models.Winner",
    },
    "ENUM_GENERATE_CHOICE_DESCRIPTION": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "apps.api.documenting.close_bodies",
        "apps.api.documenting.add_security",
    ],
}

SINGLE_SIGN_ON_SECRET = ENVIRONMENT.single_sign_on()  # the name keeps it out of error reports

DATA_KEY_SECONDS = ENVIRONMENT.data_key_seconds

LOCKSTEP = {
    "TRUSTED_PROXIES": ENVIRONMENT.trusted_proxies,
    "SIGN_IN_REQUESTS": ENVIRONMENT.sign_in_requests,
    "API_REQUESTS": ENVIRONMENT.api_requests,
    "ENROLMENT_HOURS": ENVIRONMENT.enrolment_hours,
    "PASSKEY_DOMAIN": ENVIRONMENT.passkey_domain,
    "TOKEN_DAYS": ENVIRONMENT.token_days,
    "MAIL_CONFIGURED": TESTING or ENVIRONMENT.mail_url is not None,
    "PUBLIC_URL": ENVIRONMENT.own_address(),
    "LEASE_SECONDS": ENVIRONMENT.lease_seconds,
    "TICK_SECONDS": ENVIRONMENT.tick_seconds,
    "PARTITION_ROWS": ENVIRONMENT.partition_rows,
    "PARTITION_MB": ENVIRONMENT.partition_mb,
    "RUN_WINDOW": ENVIRONMENT.run_window,
    "MEMORY_LIMIT_MB": ENVIRONMENT.memory_limit_mb,
    "WORKER_PROCESSES": ENVIRONMENT.worker_processes,
    "SPILL_DIR": DATA_DIR / "spill",
    "LEDGER_ROWS_LIMIT": ENVIRONMENT.ledger_rows_limit,
    "LEDGER_COMPACT_DAYS": ENVIRONMENT.ledger_compact_days,
    "LEDGER_KEEP_DAYS": ENVIRONMENT.ledger_keep_days,
    "AUDIT_CHECKPOINT_FILE": ENVIRONMENT.audit_checkpoints(),
    "ERASURE_REGISTER": ENVIRONMENT.erasures(),
}

globals().update(ENVIRONMENT.mail())

CELERY_BROKER_URL = ENVIRONMENT.celery_broker()
CELERY_BROKER_USE_SSL = ENVIRONMENT.celery_broker_tls()
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 200
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "lockstep"
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "tick": {
        "task": "runs.tick",
        "schedule": ENVIRONMENT.tick_seconds,
        "options": {"expires": max(ENVIRONMENT.tick_seconds * 4, 20)},
    },
    "maintain": {"task": "ledger.maintain", "schedule": 3600.0, "options": {"expires": 3600}},
    "former values": {
        "task": "runs.keep_former_values",
        "schedule": 30.0,
        "options": {"expires": 60},
    },
    "searchable fields": {
        "task": "runs.follow_searchable_fields",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "forget_incidents": {
        "task": "alerts.forget",
        "schedule": 24 * 3600.0,
        "options": {"expires": 3600},
    },
    "watch": {"task": "alerts.watch", "schedule": 10.0, "options": {"expires": 30}},
    "seal": {
        "task": "audit.seal",
        "schedule": ENVIRONMENT.audit_seal_seconds,
        "options": {"expires": max(ENVIRONMENT.audit_seal_seconds, 20)},
    },
    "verify": {
        "task": "audit.verify",
        "schedule": ENVIRONMENT.audit_verify_hours * 3600,
        "options": {"expires": ENVIRONMENT.audit_verify_hours * 3600},
    },
    "rotate": {"task": "encryption.rotate", "schedule": 10.0, "options": {"expires": 20}},
    "keys": {
        "task": "encryption.maintain",
        "schedule": 24 * 3600.0,
        "options": {"expires": 3600},
    },
    "forget_calls": {"task": "api.forget_calls", "schedule": 3600.0, "options": {"expires": 3600}},
    "hub": {"task": "hub.maintain", "schedule": 3600.0, "options": {"expires": 3600}},
    "forget": {"task": "accounts.forget_expired", "schedule": 3600.0, "options": {"expires": 3600}},
}
if CELERY_BROKER_URL.startswith("filesystem:"):
    QUEUE_DIR = DATA_DIR / "queue"
    for _folder in ("messages", "control"):
        (QUEUE_DIR / _folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(QUEUE_DIR / "messages"),
        "data_folder_out": str(QUEUE_DIR / "messages"),
        "control_folder": str(QUEUE_DIR / "control"),
        "polling_interval": 0.2,
    }
elif CELERY_BROKER_URL.startswith("redis"):
    # Without the two sweep options a lost message comes back after some 100 seconds only.
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": 600,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
    }

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "apps.core.redaction.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": ENVIRONMENT.log_level},
    "loggers": {
        "django.db.backends": {"level": "INFO"},
        "axes": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        # Its own handlers would write past the formatter.
        "uvicorn": {"handlers": ["console"], "propagate": False},
        "uvicorn.access": {"handlers": ["console"], "level": "WARNING", "propagate": False},
    },
}

SIMPLE_HISTORY_REVERT_DISABLED = True

# The palette keeps what it found for minutes: configuration only, nothing of people's records.
SEARCHED_MODELS = ["sources.source", "sources.dataset", "mappings.mapping", "rules.rule"]

UNFOLD = {
    "SITE_TITLE": "Lockstep",
    "SITE_HEADER": "Lockstep",
    "SITE_SUBHEADER": "Every platform, the same records",
    "SITE_SYMBOL": "sync",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("lockstep/favicon.svg"),
        }
    ],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "ENVIRONMENT": "apps.console.navigation.environment_label",
    "DASHBOARD_CALLBACK": "apps.console.overview.context",
    "STYLES": [
        lambda request: static("lockstep/theme.css"),
        lambda request: static("lockstep/lockstep.css"),
    ],
    "SCRIPTS": [lambda request: static("lockstep/lockstep.js")],
    "ACCOUNT": {"navigation": ACCOUNT_LINKS},
    "COMMAND": {"search_models": SEARCHED_MODELS, "show_history": False},
    "SIDEBAR": {"show_search": True, "show_all_applications": False, "navigation": SIDEBAR},
}
