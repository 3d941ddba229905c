"""ASGI entry point: `uvicorn config.asgi:application`."""

import os
import warnings

from django.core.asgi import get_asgi_application

from apps.core.collector import spare_what_is_loaded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Static files are read whole before they are sent. They are small, and nobody need be told.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous")

application = get_asgi_application()
spare_what_is_loaded()
