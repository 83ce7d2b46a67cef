"""Every address of the site, in one screen."""

from __future__ import annotations

from django.urls import include, path

from rlhf_platform import health
from rlhf_platform.accounts.views import sign_in_by_link

urlpatterns = [
    path("healthz", health.alive, name="alive"),
    path("readyz", health.ready, name="ready"),
    path("sign-in/<str:secret>/", sign_in_by_link, name="sign_in_by_link"),
    path("account/", include("allauth.account.urls")),
    path("api/", include("rlhf_platform.api")),
    path("", include("annotate.urls")),
    path("", include("training.urls")),
]
