"""`manage.py one_time_password admin`: let a person in who has lost the password, or more."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.accounts.models import User
from apps.accounts.services import issue_one_time_password, lift_locks, remove_all_factors
from apps.audit.actions import Act
from apps.audit.origin import acting_from, command_origin
from apps.audit.services import record


class Command(BaseCommand):
    help = "Give a person a new one-time password. It ends the person's sessions."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument(
            "--forget-factors",
            action="store_true",
            help="Forget second factors and recovery codes as well: the person enrols anew.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"Nobody is called {options['username']}.")
        with acting_from(command_origin("one_time_password")):
            if options["forget_factors"]:
                remove_all_factors(user)
                record(Act.FACTORS_RESET, user, actor=None)
            lift_locks(user)
            password = issue_one_time_password(user)
        self.stdout.write(f"One-time password for {user}: {password}")
