from django.apps import AppConfig


class RulesConfig(AppConfig):
    name = "apps.rules"
    verbose_name = "Rules"

    def ready(self) -> None:
        # They say which mappings grants reach; until they have, nobody reaches one by a grant.
        from apps.rules import selectors  # noqa: F401
