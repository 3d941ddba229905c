from django.apps import AppConfig

from apps.connectors.registry import register


class HubConfig(AppConfig):
    name = "apps.hub"
    verbose_name = "Hub"

    def ready(self) -> None:
        register("hub", "apps.hub.connector:HubConnector")
