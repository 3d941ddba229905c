"""Sign-ins, failures and sign-outs on record: Django's signals are where every door tells them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver

from apps.audit.actions import Act
from apps.audit.models import Outcome
from apps.audit.services import STRANGER, name_digest, record


@receiver(user_logged_in)
def signed_in(sender: Any, user: Any, **kwargs: Any) -> None:
    record(Act.SIGNED_IN, user, actor=user)


@receiver(user_logged_out)
def signed_out(sender: Any, user: Any, **kwargs: Any) -> None:
    """Without a person where the session had ended by itself: then there is nothing to tell."""
    if user is not None:
        record(Act.SIGNED_OUT, user, actor=user)


@receiver(user_login_failed)
def sign_in_failed(sender: Any, credentials: dict[str, Any], **kwargs: Any) -> None:
    """For whom, where there is somebody of that name; else a digest of what was typed."""
    people = get_user_model()
    typed = str(credentials.get(people.USERNAME_FIELD) or credentials.get("username") or "")
    named = people.objects.filter(**{people.USERNAME_FIELD: typed.replace("\x00", "")}).first()
    details = {} if named is not None or not typed else {"unknown name": name_digest(typed)}
    record(Act.SIGN_IN_FAILED, named, actor=STRANGER, outcome=Outcome.FAILED, details=details)
