from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


def give_roles_their_permissions(
    sender: AppConfig, using: str, verbosity: int = 1, **kwargs: Any
) -> None:
    """After a room's migrations, and after Django has made its permissions."""
    from apps.accounts.models import StandardRole
    from apps.accounts.services import hand_out

    if StandardRole._meta.db_table in connections[using].introspection.table_names():
        hand_out(sender.label)


class AccountsConfig(AppConfig):
    name = "apps.accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from apps.accounts import sign_in_events  # noqa: F401

        post_migrate.connect(give_roles_their_permissions)
