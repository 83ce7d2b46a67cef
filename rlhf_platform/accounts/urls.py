"""A person's own account.

Of allauth's addresses only these: those about e-mail would let people take an address unproven
(there is no mail server), which an admin of another workspace may invite next.
"""

from __future__ import annotations

from allauth.account import views as allauth
from django.urls import path

from rlhf_platform.accounts.views import tokens, workspaces

urlpatterns = [
    path("tokens/", tokens.tokens, name="tokens"),
    path("tokens/<int:pk>/revoke", tokens.revoke, name="token_revoke"),
    path("workspace", workspaces.switch, name="switch_workspace"),
    path("login/", allauth.login, name="account_login"),
    path("logout/", allauth.logout, name="account_logout"),
    path("inactive/", allauth.account_inactive, name="account_inactive"),
    path("reauthenticate/", allauth.reauthenticate, name="account_reauthenticate"),
    path("password/change/", allauth.password_change, name="account_change_password"),
    path("password/set/", allauth.password_set, name="account_set_password"),
]
