from django.apps import AppConfig


class EncryptionConfig(AppConfig):
    name = "apps.encryption"
    verbose_name = "Encryption"
