"""Which objects a person or a role reaches, and how far."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel


class Level(models.IntegerChoices):
    """How far a grant goes; each level holds those before it."""

    SEE = 1, "See"
    RUN = 2, "Run"  # and all else that is done with it: pause, decide, approve, undo, …
    CHANGE = 3, "Change"


_SEEING = frozenset({"view", "reveal", "pull"})
_CHANGING = frozenset({"add", "change", "delete", "save"})


def level_of(action: str) -> Level:
    """The level that an action on an object needs."""
    if action in _SEEING:
        return Level.SEE
    return Level.CHANGE if action in _CHANGING else Level.RUN


class Grant(BaseModel):
    """A person or a role reaches one object, or all that carry a tag, up to a level.

    The object is named by kind and id, without a foreign key: this room does not know the rooms
    above. A grant that outlives its object reaches nothing, because ids are never used again.
    """

    class Kind(models.TextChoices):
        SOURCE = "source", "Source"
        DATASET = "dataset", "Dataset"
        RULE = "rule", "Rule"
        TAG = "tag", "Tag"

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="grants"
    )
    role = models.ForeignKey(Group, null=True, on_delete=models.CASCADE, related_name="grants")
    kind = models.CharField(max_length=7, choices=Kind.choices)
    object_id = models.UUIDField()
    level = models.PositiveSmallIntegerField(choices=Level.choices, default=Level.SEE)
    given_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        permissions = [("give_grant", "Can grant sources, datasets and rules, and tag them")]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=Q(person=None) ^ Q(role=None), name="grant_has_one_holder"
            ),
            models.UniqueConstraint(
                fields=["person", "kind", "object_id"],
                condition=Q(role=None),
                name="one_grant_per_person",
            ),
            models.UniqueConstraint(
                fields=["role", "kind", "object_id"],
                condition=Q(person=None),
                name="one_grant_per_role",
            ),
        ]
        indexes = [models.Index(fields=["kind", "object_id"], name="grant_by_object")]

    def __str__(self) -> str:
        return f"{self.person or self.role}: {self.get_level_display().lower()} a {self.kind}"
