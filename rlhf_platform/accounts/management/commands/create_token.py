from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from rlhf_platform.accounts.models import Membership
from rlhf_platform.accounts.secrets import make_api_token

MAX_NAME = 80


class Command(BaseCommand):
    help = "Print a new API token of one person in one workspace. It is shown this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--name", required=True, help="what the token is for")
        parser.add_argument("--workspace", default="main", help="short name (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        email, slug, name = options["email"].lower(), options["workspace"], options["name"].strip()
        if not 1 <= len(name) <= MAX_NAME:
            raise CommandError(f"--name must have 1 to {MAX_NAME} characters")
        membership = (
            Membership.objects.filter(user__email=email, user__is_active=True, workspace__slug=slug)
            .select_related("user", "workspace")
            .first()
        )
        if membership is None:
            raise CommandError(
                f"{email} is no member of workspace {slug!r}; "
                f"add them with: manage.py create_member {email} --workspace {slug}"
            )
        secret = make_api_token(user=membership.user, workspace=membership.workspace, name=name)
        self.stdout.write(secret)
