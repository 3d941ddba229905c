"""Reads of this room; the scoped queryset of each of its models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.alerts.models import (
    Channel,
    Delivery,
    EscalationPolicy,
    EscalationStep,
    Incident,
    IncidentEvent,
)
from apps.core.selectors import narrows, reached, scoped, without_grants
from apps.rules.models import Rule
from apps.rules.selectors import reached_rule_ids
from apps.sources.models import Source

without_grants(Channel, EscalationPolicy, EscalationStep)


@narrows(Incident)
def _granted(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With their rule or source; those of Lockstep itself are for who reaches everything."""
    by_rule = Q(rule__in=reached_rule_ids(actor, action))
    by_source = Q(source__in=reached(Source.objects.order_by(), actor, action).values("pk"))
    return rows.filter(by_rule | by_source)


@narrows(IncidentEvent, Delivery)
def _granted_parts(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With their incident."""
    return rows.filter(incident__in=_granted(Incident.objects.all(), actor, action).values("pk"))


def incidents(actor: Any, action: str = "view") -> QuerySet[Incident]:
    return scoped(Incident.objects.select_related("rule", "source"), actor, action)


def live_incidents(actor: Any) -> QuerySet[Incident]:
    """What is wrong now, worst first."""
    return incidents(actor).filter(state__in=Incident.LIVE).order_by("-severity", "-created_at")


def channels(actor: Any, action: str = "view") -> QuerySet[Channel]:
    return scoped(Channel.objects.all(), actor, action)


def deliveries(actor: Any, action: str = "view") -> QuerySet[Delivery]:
    return scoped(Delivery.objects.select_related("incident", "channel"), actor, action)


def earlier_fixes(actor: Any, incident: Incident, most: int = 3) -> list[Incident]:
    """Resolved incidents of the same kind and cause of which somebody has said what helped."""
    same = incidents(actor).filter(kind=incident.kind, cause_code=incident.cause_code)
    told = same.exclude(fix="").exclude(pk=incident.pk).exclude(resolved_at=None)
    return list(told.order_by("-resolved_at")[:most])


UNPOLICED = EscalationPolicy(name="", fresh_minutes=None)
"""What counts where there is no policy: the thresholds of a new one, and nobody is told."""


@dataclass(slots=True)
class Policies:
    """All policies with what they are for, read once: by rule, then by tag, then the default."""

    by_rule: dict[UUID, EscalationPolicy] = field(default_factory=dict)
    by_tag: dict[UUID, EscalationPolicy] = field(default_factory=dict)
    default: EscalationPolicy = UNPOLICED
    tags: dict[UUID, set[UUID]] = field(default_factory=dict)  # of rules and sources

    @classmethod
    def read(cls) -> Policies:
        found = cls()
        for policy in EscalationPolicy.objects.prefetch_related("rules", "tags").order_by("name"):
            for rule in policy.rules.all():
                found.by_rule.setdefault(rule.pk, policy)
            for tag in policy.tags.all():
                found.by_tag.setdefault(tag.pk, policy)
            if policy.is_default:
                found.default = policy
        if found.by_tag:
            found._read_tags(Rule.tags.through.objects.values_list("rule_id", "tag_id"))
            found._read_tags(Source.tags.through.objects.values_list("source_id", "tag_id"))
        return found

    def _read_tags(self, pairs: Iterable[tuple[UUID, UUID]]) -> None:
        for owner, tag in pairs:
            self.tags.setdefault(owner, set()).add(tag)

    def of(self, obj: Rule | Source | None) -> EscalationPolicy:
        """The policy that counts for a rule, a source, or (None) Lockstep itself."""
        return self.of_id(obj.pk if obj is not None else None)

    def of_id(self, owner: UUID | None) -> EscalationPolicy:
        if owner is None:
            return self.default
        if owner in self.by_rule:
            return self.by_rule[owner]
        tagged = [self.by_tag[tag] for tag in self.tags.get(owner, ()) if tag in self.by_tag]
        return min(tagged, key=lambda policy: policy.name, default=self.default)
