from __future__ import annotations

from django.urls import path

from rlhf_platform.accounts.api import tokens

api_urlpatterns = [
    path("tokens", tokens.Tokens.as_view()),
    path("tokens/<int:pk>", tokens.OneToken.as_view()),
]
