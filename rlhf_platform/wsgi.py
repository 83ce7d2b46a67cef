"""The WSGI entry point: `gunicorn rlhf_platform.wsgi`."""

from __future__ import annotations

import gc
import os
import warnings

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rlhf_platform.settings")
# Without `collectstatic` files come from where they lie, which is meant (WHITENOISE_USE_FINDERS).
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)
application = get_wsgi_application()
# Every page is loaded before a server forks (gunicorn's --preload), and what is loaded stays out of
# the garbage collector's marks: so the processes share it.
get_resolver().url_patterns  # noqa: B018 - loads on access
gc.collect()
gc.freeze()
