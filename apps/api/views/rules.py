"""Rules."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Max, QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.base import Resource, etag_of, operation, require_match
from apps.api.examples import NEW_RULE
from apps.api.paging import newest_first, page_of
from apps.api.serializers.common import Nothing, Reason
from apps.api.serializers.rules import (
    NewRule,
    RuleChanges,
    RuleConfiguration,
    ShownRule,
    check_specs,
    policy_specs,
)
from apps.api.sparse import list_query, one_query, page_schema
from apps.rules.models import Rule
from apps.rules.selectors import check_spec, field_policy_spec, rules
from apps.rules.services import save_rule, set_enabled, set_rule_paused

FILTERS = ("mapping", "name", "direction", "enabled", "paused")


class Rules(Resource):
    resource = "rules"

    @operation(
        "List rules",
        scope="rules:read",
        needs=(Rule, "view"),
        answers=page_schema(ShownRule),
        query=list_query(
            ShownRule,
            mapping=serializers.UUIDField(),
            name=serializers.CharField(max_length=150),
            direction=serializers.ChoiceField(choices=Rule.Direction.choices),
            enabled=serializers.BooleanField(),
            paused=serializers.BooleanField(),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those in your reach, the newest first."""
        exact = {name: asked[name] for name in FILTERS if name in asked}
        items, following = newest_first(_whole(request).filter(**exact), asked)
        return page_of(ShownRule, items, following, asked)

    @operation(
        "Read a rule",
        scope="rules:read",
        needs=(Rule, "view"),
        answers=ShownRule,
        query=one_query(ShownRule),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """Its ETag stands for all that it says; a change needs it as If-Match."""
        return _shown(self.found(_whole(request), id), asked)

    @operation(
        "Add a rule",
        scope="rules:write",
        needs=(Rule, "add"),
        answers=ShownRule,
        status=201,
        body=NewRule,
        examples=NEW_RULE,
        unsafe=True,
    )
    def create(self, request: Request, sent: dict[str, Any]) -> Response:
        """It is checked at once. Start a dry run, look at its changes, then enable it."""
        checks, policies = sent.pop("checks", []), sent.pop("field_policies", [])
        rule = Rule(**sent)
        save_rule(rule, check_specs(checks), policy_specs(policies), actor=request.user)
        answer = _shown(rule, {})
        answer.status_code = 201
        answer["Location"] = request.build_absolute_uri(f"{request.path}/{rule.pk}")
        return answer

    @operation(
        "Change a rule",
        scope="rules:write",
        needs=(Rule, "change"),
        answers=ShownRule,
        body=RuleChanges,
        unsafe=True,
        matched=True,
    )
    def partial_update(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """What is left out stays as it is. Runs that go on keep to the version they began with."""
        rule = self.found(rules(request.user, "change").select_for_update(of=("self",)), id)
        require_match(request, etag_of(RuleConfiguration(rule)))
        checks, policies = sent.pop("checks", None), sent.pop("field_policies", None)
        for name, value in sent.items():
            setattr(rule, name, value)
        save_rule(
            rule,
            [check_spec(row) for row in rule.checks.all()]
            if checks is None
            else check_specs(checks),
            [field_policy_spec(row) for row in rule.field_policies.all()]
            if policies is None
            else policy_specs(policies),
            actor=request.user,
        )
        return _shown(Rule.objects.get(pk=rule.pk), {})

    @operation(
        "Enable the schedule of a rule",
        scope="rules:write",
        needs=(Rule, "change"),
        answers=ShownRule,
        body=Nothing,
        unsafe=True,
    )
    def enable(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Its runs start by themselves from now on."""
        return self._enabled(request, id, True)

    @operation(
        "Disable the schedule of a rule",
        scope="rules:write",
        needs=(Rule, "change"),
        answers=ShownRule,
        body=Nothing,
        unsafe=True,
    )
    def disable(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Its runs start only when somebody asks for them."""
        return self._enabled(request, id, False)

    @operation(
        "Pause a rule",
        scope="rules:write",
        needs=(Rule, "pause"),
        answers=ShownRule,
        body=Reason,
        unsafe=True,
    )
    def pause(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """No run of it starts until it is resumed."""
        return self._paused(request, id, True, sent["reason"])

    @operation(
        "Resume a rule",
        scope="rules:write",
        needs=(Rule, "pause"),
        answers=ShownRule,
        body=Reason,
        unsafe=True,
    )
    def resume(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Runs of it start again."""
        return self._paused(request, id, False, sent["reason"])

    def _enabled(self, request: Request, pk: UUID, enabled: bool) -> Response:
        rule = self.found(rules(request.user, "change"), pk)
        set_enabled(rule, enabled, actor=request.user)
        return _shown(rule, {})

    def _paused(self, request: Request, pk: UUID, paused: bool, reason: str) -> Response:
        rule = self.found(rules(request.user, "pause"), pk)
        set_rule_paused(rule, paused, reason, actor=request.user)
        return _shown(rule, {})


def _whole(request: Request) -> QuerySet[Rule]:
    rows = rules(request.user).prefetch_related("checks", "field_policies")
    return rows.annotate(latest_version=Max("versions__number"))


def _shown(rule: Rule, asked: dict[str, Any]) -> Response:
    body = ShownRule(rule, context={"fields": asked.get("fields")}).data
    return Response(body, headers={"ETag": etag_of(RuleConfiguration(rule))})
