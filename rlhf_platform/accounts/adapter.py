from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class ClosedSignupAdapter(DefaultAccountAdapter):
    """Nobody signs up by themselves: people come by invitation or from the command line."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
