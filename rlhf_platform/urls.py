"""Every address of the site, in one screen."""

from __future__ import annotations

from django.urls import include, path

from rlhf_platform import health
from rlhf_platform.accounts.views import members, sign_in

handler500 = health.broken
urlpatterns = [
    path("healthz", health.alive, name="alive"),
    path("readyz", health.ready, name="ready"),
    path("sign-in/<str:secret>/", sign_in.sign_in_by_link, name="sign_in_by_link"),
    path("account/", include("rlhf_platform.accounts.urls")),
    path("api/", include("rlhf_platform.api")),
    path("members/", members.members, name="members"),
    path("members/<int:pk>/", members.member, name="member"),
    path("", include("annotate.urls")),
    path("", include("training.urls")),
]
