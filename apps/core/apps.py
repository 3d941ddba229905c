from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate


class CoreConfig(AppConfig):
    name = "apps.core"
    verbose_name = "Platform"

    def ready(self) -> None:
        from apps.connectors.outbound import allow_outbound
        from apps.core.redaction import hide
        from config.environment import Environment

        hide(*Environment().secret_values())
        allow_outbound(settings.ALLOWED_NETWORKS, settings.ALLOWED_PORTS)
        post_migrate.connect(_after_migrating, sender=self)


def _after_migrating(**kwargs: Any) -> None:
    """The platform has data keys from its first migration on, and after a flush new ones."""
    from apps.core.services import prepare_data_keys

    prepare_data_keys()
