"""When a rule's plan waits for a person."""

from __future__ import annotations

from django.core.validators import MinValueValidator
from django.db import models


class ApprovalSettings(models.Model):
    """The columns of a rule that say when its plans wait, and for how long."""

    class Approval(models.TextChoices):
        NEVER = "never", "Never: plans are applied at once"
        ALWAYS = "always", "Always"
        FIRST = "first", "Until a run of the rule has been applied"
        GUARD = "guard", "When a guard is exceeded, instead of stopping"

    approval = models.CharField(
        "wait for approval", max_length=10, choices=Approval.choices, default=Approval.NEVER
    )
    approval_hours = models.PositiveIntegerField(
        "a plan waits (hours)",
        default=72,
        validators=[MinValueValidator(1)],
        help_text="Then it expires, and nothing of it is written.",
    )
    four_eyes = models.BooleanField(
        default=False,
        help_text="Who asked for the run may not approve it; of a run that nobody asked for, "
        "who last changed the rule or its mapping.",
    )

    class Meta:
        abstract = True
