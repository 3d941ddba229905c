"""`manage.py one_time_password admin`: let a person in who has lost the password."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.accounts.models import User
from apps.accounts.services import issue_one_time_password


class Command(BaseCommand):
    help = "Give a person a new one-time password. It ends the person's sessions."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"Nobody is called {options['username']}.")
        self.stdout.write(f"One-time password for {user}: {issue_one_time_password(user)}")
