"""What can go wrong with people and their secrets, worded for the person who asked."""

from __future__ import annotations


class AccountsError(Exception):
    """Raised when a change of people or secrets is refused; its text may be shown to the user."""
