from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from rlhf_platform.accounts.models import User
from rlhf_platform.accounts.secrets import make_sign_in_link


class Command(BaseCommand):
    help = "Print a link that signs one person in, once, within a day."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--site", default="http://127.0.0.1:8000", help="where the site is")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email=options["email"].lower(), is_active=True).first()
        if user is None:
            raise CommandError(
                f"nobody here has the address {options['email']}; add them with create_member"
            )
        self.stdout.write(f"{options['site'].rstrip('/')}/sign-in/{make_sign_in_link(user=user)}/")
