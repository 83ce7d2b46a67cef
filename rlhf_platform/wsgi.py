"""The WSGI entry point: `gunicorn rlhf_platform.wsgi`."""

from __future__ import annotations

import os
import warnings

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rlhf_platform.settings")
# Without `collectstatic` files come from where they lie, which is meant (WHITENOISE_USE_FINDERS).
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)
application = get_wsgi_application()
