"""`manage.py invite NAME`: a link by which a person chooses a password and enrols."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.services import invite, invite_new


class Command(BaseCommand):
    help = (
        "Invite a person, new or not, to choose a password and enrol a second factor. The "
        "password of somebody who has one stops working, and all sessions end."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--administrator", action="store_true", help="May do everything.")
        parser.add_argument("--role", action="append", default=[], help="May be repeated.")
        parser.add_argument("--email", default="")
        parser.add_argument(
            "--address",
            default="http://127.0.0.1:8000/",
            help="Where people open Lockstep, such as https://lockstep.example/.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is not None:
            if options["administrator"] or options["role"] or options["email"]:
                raise CommandError(f"{user} is known already: change rights in the admin.")
            token = invite(user, actor=None)
        else:
            token = self._new(options)
        link = urljoin(options["address"], reverse("admin:invitation", args=(token,)))
        self.stdout.write(f"Invitation for {options['username']}, works once: {link}")

    def _new(self, options: dict[str, Any]) -> str:
        roles = list(Group.objects.filter(name__in=options["role"]))
        missing = set(options["role"]) - {role.name for role in roles}
        if missing:
            raise CommandError(f"There is no role {', '.join(sorted(missing))}.")
        try:
            return invite_new(
                options["username"],
                is_superuser=options["administrator"],
                roles=roles,
                email=options["email"],
            )[1]
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
