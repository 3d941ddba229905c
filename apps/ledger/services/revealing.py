"""Showing personal values to a person who says why: asked, allowed, on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import models

from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.connectors.errors import Action, LockstepError
from apps.core.selectors import permits
from apps.ledger.selectors.masking import rule_masks
from apps.rules.selectors import reaches_rule
from apps.sources.models import Field

if TYPE_CHECKING:
    from apps.accounts.models import User


class ReasonMissing(LockstepError):
    """Somebody wants to see personal values and does not say why."""

    code = "reveal.reason"
    action = Action.ASK
    default_remedy = "Say why you need to see the values; the reason goes into the audit log."


def may_reveal(actor: User | None, rule_id: UUID) -> bool:
    """Whether `actor` may see personal values of a rule's records, with a reason."""
    return permits(actor, Field, "reveal") and reaches_rule(actor, rule_id, "reveal")


def reveal(
    subject: models.Model, rule_id: UUID, *, actor: User, reason: str, about: str = ""
) -> None:
    """Put on record that this person sees the personal values of an object, and why.

    subject: what is shown: a change, a conflict, a rejection, a run, or the rule of a record;
    about: which record of the rule, by the hash of its key.
    Raises PermissionDenied and ReasonMissing; where neither is raised, the face shows the values
    this one time.
    """
    if not may_reveal(actor, rule_id):
        raise PermissionDenied("you may not reveal personal values")
    if not reason.strip():
        raise ReasonMissing("nothing was shown: the reason is missing")
    mask = rule_masks([rule_id])[rule_id]
    details: dict[str, Any] = {"rule": str(rule_id), "fields": sorted(mask.left | mask.right)}
    if about:
        details["record"] = about
    label = str(subject._meta.verbose_name)
    record(
        Act.VALUES_REVEALED,
        Subject.of(subject, label),
        actor=actor,
        reason=reason.strip()[:500],
        details=details,
    )
