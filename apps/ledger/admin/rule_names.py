"""Rules as the ledger's pages show them: it names them by id only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from apps.core.selectors import reached
from apps.rules.models import Rule


def with_rule_names(queryset: QuerySet[Any]) -> QuerySet[Any]:
    names = Rule.objects.filter(pk=OuterRef("rule_id")).values("name")[:1]
    return queryset.annotate(rule_name=Subquery(names))


class RuleFilter(admin.SimpleListFilter):
    title = "rule"
    parameter_name = "rule"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        known = reached(Rule.objects.all(), request.user)
        return [(str(pk), name) for pk, name in known.values_list("pk", "name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        known = {pk for pk, _ in self.lookup_choices}
        return queryset.filter(rule_id=self.value()) if self.value() in known else queryset
