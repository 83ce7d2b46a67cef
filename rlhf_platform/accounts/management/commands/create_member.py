from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email

from rlhf_platform.accounts.models import Membership, Role, User, Workspace


class Command(BaseCommand):
    help = "Add a person to a workspace, or change their role. They sign in by a one-time link."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--workspace", default="main")
        parser.add_argument("--role", default=Role.ANNOTATOR, choices=Role.values)
        parser.add_argument("--name", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        email = options["email"].lower()
        try:
            validate_email(email)
        except ValidationError:
            raise CommandError(f"{email!r} is not an e-mail address") from None
        workspace = Workspace.objects.filter(slug=options["workspace"]).first()
        if workspace is None:
            raise CommandError(
                f"there is no workspace {options['workspace']!r}; create_project makes one"
            )
        user = User.objects.filter(email=email).first()
        if user is None:
            user = User.objects.create_user(email, name=options["name"])
        Membership.objects.update_or_create(
            workspace=workspace, user=user, defaults={"role": options["role"]}
        )
        self.stdout.write(f"{email} is {options['role']} in {workspace.slug}")
        self.stdout.write(f"next: manage.py sign_in_link {email}")
