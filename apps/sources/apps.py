from django.apps import AppConfig
from django.conf import settings


class SourcesConfig(AppConfig):
    name = "apps.sources"
    verbose_name = "Sources"

    def ready(self) -> None:
        from apps.connectors.reach import allow_files, keep_from_sources

        allow_files(settings.FILES_ROOTS)
        keep_from_sources(*settings.OWN_FILES)
