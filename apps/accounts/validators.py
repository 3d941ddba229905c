"""What a new password must be, beside what Django asks."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError


class AnotherPasswordValidator:
    """Refuses the password that the person has now: a one-time password would stay for ever."""

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        if user is not None and user.pk and user.check_password(password):
            raise ValidationError(self.get_help_text(), code="password_unchanged")

    def get_help_text(self) -> str:
        return "Your password must be another one than before."
