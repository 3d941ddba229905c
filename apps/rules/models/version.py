"""What a rule and its mapping said at one moment."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from apps.core.models import BaseModel
from apps.engine.spec import RuleSpec
from apps.mappings.models import MappingVersion
from apps.rules.models.rule import Rule


class RuleVersion(BaseModel):
    """What a rule and its mapping said at one moment. Never changed."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    mapping_version = models.ForeignKey(
        MappingVersion, on_delete=models.PROTECT, related_name="rule_versions"
    )
    spec_data = models.JSONField()
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["rule", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "number"], name="rule_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.rule.name} v{self.number}"

    def spec(self) -> RuleSpec:
        return RuleSpec.model_validate(self.spec_data)
