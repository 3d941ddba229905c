"""The rule page: one version from rule and checks, errors where they belong, buttons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from apps.engine.spec import CheckKind, FieldPolicySpec
from apps.ledger.models import Change
from apps.mappings.services import save_mapping
from apps.rules.admin.checks import parameter_text, parse_parameter
from apps.rules.models import Check, FieldPolicy, Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run
from tests.people import administrator, person, signed_in, viewer
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.add_customers(3)
    return pair


def posted(
    rule: Rule,
    checks: list[dict[str, str]] | None = None,
    policies: list[dict[str, str]] | None = None,
    **changes: Any,
) -> dict:
    data = {
        "policy": "ask",
        "first_contact": "ask",
        "edit_delete": "edit",
        "on_right_delete": "propagate",
        "left_mark_value": "true",
        "minimum_gap_seconds": "1",
        "tie": "ask",
        "approval": "never",
        "approval_hours": "72",
        "field_policies-TOTAL_FORMS": str(len(policies or [])),
        "field_policies-INITIAL_FORMS": "0",
        "name": rule.name,
        "mapping": str(rule.mapping_id),
        "direction": "left_to_right",
        "delta": "full",
        "cursor_lag_seconds": "0",
        "sweep_minutes": "1440",
        "on_leave": "keep",
        "on_delete": "propagate",
        "mark_value": "true",
        "schedule_kind": "manual",
        "time_zone": "UTC",
        "refuse_empty_source": "on",
        "checks-TOTAL_FORMS": str(len(checks or [])),
        "checks-INITIAL_FORMS": "0",
        "_continue": "1",
    }
    for number, check in enumerate(checks or []):
        data |= {f"checks-{number}-{name}": value for name, value in check.items()}
    for number, policy in enumerate(policies or []):
        data |= {f"field_policies-{number}-{name}": value for name, value in policy.items()}
    return {**data, **changes}


def change_url(rule: Rule) -> str:
    return reverse("admin:rules_rule_change", args=(rule.pk,))


def do_url(rule: Rule, name: str) -> str:
    return reverse("admin:rules_rule_do", args=(rule.pk, name))


def test_rule_and_checks_are_saved_as_one_version(pair):
    check = {
        "name": "paid",
        "kind": "range",
        "field": "balance",
        "parameter": "0..100",
        "severity": "reject",
    }
    data = posted(pair.rule, [check], max_deletes="5")
    answer = signed_in(administrator()).post(change_url(pair.rule), data)
    assert answer.status_code == 302, answer.context["errors"]
    spec = pair.rule.current_version.spec()
    assert pair.rule.current_version.number == 2
    assert (spec.checks[0].minimum, spec.checks[0].maximum) == ("0", "100")
    assert spec.guards.max_deletes == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schedule_kind": "cron", "cron": "every now and then"}, "schedule_kind"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"delta": "cursor", "cursor_field": "nothing"}, "cursor_field"),
        ({"on_delete": "mark"}, "__all__"),
        ({"filter": "lowr(name) = 'a'"}, "filter"),
    ],
)
def test_what_the_service_refuses_is_shown_in_the_form(pair, changes, field):
    answer = signed_in(administrator()).post(change_url(pair.rule), posted(pair.rule, **changes))
    assert answer.status_code == 200
    assert field in answer.context["adminform"].form.errors
    assert pair.rule.versions.count() == 1


def test_who_may_change_a_rule_keeps_its_checks(pair):
    """Checks have no rights of their own: a table that is not shown would come back empty."""
    check = {"name": "named", "kind": "required", "field": "full_name", "severity": "reject"}
    signed_in(administrator()).post(change_url(pair.rule), posted(pair.rule, [check]))
    client = signed_in(person("operator", "rules.view_rule", "rules.change_rule"))

    shown = client.get(change_url(pair.rule)).context["inline_admin_formsets"]
    checks = next(part.formset for part in shown if part.formset.model is Check)
    assert [form.instance.name for form in checks.initial_forms] == ["named"]
    stored = {**check, "id": str(pair.rule.checks.get().pk), "rule": str(pair.rule.pk)}
    changes = {"checks-INITIAL_FORMS": "1", "description": "changed"}
    client.post(change_url(pair.rule), posted(pair.rule, [stored], **changes))

    pair.rule.refresh_from_db()
    assert pair.rule.description == "changed"
    assert [found.name for found in pair.rule.checks.all()] == ["named"]


def test_who_may_only_look_at_rules_sees_their_checks(pair):
    check = {"name": "named", "kind": "required", "field": "full_name", "severity": "reject"}
    signed_in(administrator()).post(change_url(pair.rule), posted(pair.rule, [check]))

    client = signed_in(person("support", "rules.view_rule"))

    assert "named" in client.get(change_url(pair.rule)).content.decode()
    assert client.post(change_url(pair.rule), posted(pair.rule)).status_code == 403


def two_way_rule(pair: Pair) -> Rule:
    """The pair's rule, both ways, with a policy for one field; the mapping is copied field by
    field, so that every field flows back.
    """
    save_mapping(pair.mapping, PLAIN_FIELDS, ["client_id"], actor=None)
    pair.rule.direction = "two_way"
    policy = FieldPolicySpec(field="balance", policy="counter")
    save_rule(pair.rule, [], [policy], actor=None)
    return pair.rule


def test_two_way_settings_and_policies_are_saved_as_one_version(pair):
    save_mapping(pair.mapping, PLAIN_FIELDS, ["client_id"], actor=None)
    policies = [
        {"field": "balance", "policy": "counter"},
        {"field": "mail", "policy": "expression", "expression": "coalesce(left_value, 'x')"},
    ]
    changes = {
        "direction": "two_way",
        "first_contact": "left",
        "approval": "always",
        "four_eyes": "on",
    }
    data = posted(pair.rule, policies=policies, **changes)
    answer = signed_in(administrator()).post(change_url(pair.rule), data)
    assert answer.status_code == 302, answer.context["errors"]
    spec = pair.rule.current_version.spec()
    assert {item.field: item.policy.value for item in spec.two_way.fields} == {
        "balance": "counter",
        "mail": "expression",
    }
    assert spec.two_way.first_contact == "left"
    assert (spec.approval, spec.four_eyes) == ("always", True)


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        ({"field": "mail", "policy": "counter"}, "policy", "does not suit a field of type text"),
        ({"field": "note", "policy": "left"}, "field", "not one of the available choices"),
        ({"field": "mail", "policy": "expression"}, "expression", "Write an expression"),
        (
            {"field": "mail", "policy": "expression", "expression": "getenv('HOME')"},
            "expression",
            "getenv",
        ),
    ],
)
def test_a_policy_that_does_not_suit_is_shown_in_its_line(pair, line, field, says):
    save_mapping(pair.mapping, PLAIN_FIELDS, ["client_id"], actor=None)
    data = posted(pair.rule, policies=[line], direction="two_way")
    answer = signed_in(administrator()).post(change_url(pair.rule), data)
    assert answer.status_code == 200
    shown = answer.context["inline_admin_formsets"]
    lines = next(part.formset for part in shown if part.formset.model is FieldPolicy)
    assert says in str(lines.forms[0].errors[field])
    assert pair.rule.versions.count() == 1


def test_a_line_offers_only_policies_that_suit_its_field(pair):
    page = signed_in(administrator()).get(change_url(two_way_rule(pair)))
    shown = page.context["inline_admin_formsets"]
    lines = next(part.formset for part in shown if part.formset.model is FieldPolicy)
    offered = {value for value, _ in lines.forms[0].fields["policy"].choices}
    assert {"counter", "highest", "ask"} <= offered
    assert not {"text", "set"} & offered
    assert "Both changes count" in page.content.decode()


def test_who_may_only_look_sees_what_a_two_way_rule_says(pair):
    client = signed_in(person("support", "rules.view_rule"))
    assert (
        "who wins where both sides changed"
        not in client.get(change_url(pair.rule)).content.decode()
    )
    page = client.get(change_url(two_way_rule(pair))).content.decode()
    assert "who wins where both sides changed" in page
    assert "Counter: add both changes" in page


def test_a_rule_that_would_close_a_circle_is_refused_in_its_form(pair):
    two_way_rule(pair)
    data = posted(pair.rule, name="the other", direction="two_way")
    answer = signed_in(administrator()).post(reverse("admin:rules_rule_add"), data)
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors["direction"]
    assert "'the other' → 'pair'" in str(errors).replace("&#x27;", "'")
    assert Rule.objects.count() == 1


def test_dry_run_leads_to_its_run(pair):
    answer = signed_in(administrator()).post(do_url(pair.rule, "dry-run"))
    run = Run.objects.get()
    assert run.is_dry
    assert answer["Location"] == reverse("admin:runs_run_change", args=(run.pk,))


def test_a_paused_rule_says_why_it_does_not_run(pair):
    client = signed_in(administrator())
    client.post(do_url(pair.rule, "pause"))
    answer = client.post(do_url(pair.rule, "run"), follow=True)
    assert not Run.objects.exists()
    assert any("paused" in str(message) for message in answer.context["messages"])


def test_enabling_and_disabling(pair):
    client = signed_in(administrator())
    Rule.objects.update(schedule_kind="every", every_minutes=5)
    client.post(do_url(pair.rule, "enable"))
    pair.rule.refresh_from_db()
    assert pair.rule.enabled
    assert "Next five due times" in client.get(change_url(pair.rule)).content.decode()
    client.post(do_url(pair.rule, "disable"))
    pair.rule.refresh_from_db()
    assert not pair.rule.enabled


def test_running_needs_its_permission(pair):
    assert signed_in(viewer()).post(do_url(pair.rule, "run")).status_code == 403
    runner = person("runner", "rules.view_rule", "rules.run_rule", "runs.view_run")
    assert signed_in(runner).post(do_url(pair.rule, "run")).status_code == 302
    assert Run.objects.get().requested_by == runner


def test_a_deleted_rule_takes_its_history_along(pair):
    pair.run()
    client = signed_in(administrator())
    address = reverse("admin:rules_rule_delete", args=(pair.rule.pk,))
    assert "runs, with their changes" in client.get(address).content.decode().lower()
    assert client.post(address, {"post": "yes"}).status_code == 302
    assert not Rule.objects.exists()
    assert not Run.objects.exists()
    assert not Change.objects.exists()
    assert len(pair.clients()) == 3


def test_a_rule_that_runs_is_not_deleted(pair):
    request_run(pair.rule, actor=None)
    address = reverse("admin:rules_rule_delete", args=(pair.rule.pk,))
    signed_in(administrator()).post(address, {"post": "yes"})
    assert Rule.objects.exists()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("type", "decimal(10,2)"),
        ("pattern", "[A-Z]+"),
        ("range", "0..100"),
        ("range", "..5"),
        ("set", "new, paid"),
        ("reference", "iso"),
        ("expression", "price > 0"),
        ("required", ""),
    ],
)
def test_a_checks_parameter_reads_as_it_was_written(kind, text):
    check = Check(kind=kind, **_as_stored(parse_parameter(CheckKind(kind), text)))
    assert parameter_text(check) == text


def _as_stored(values: dict[str, Any]) -> dict[str, Any]:
    return {name: "" if value is None else value for name, value in values.items()}


@pytest.mark.parametrize(("kind", "text"), [("range", "5"), ("range", ".."), ("set", "")])
def test_a_parameter_that_says_nothing_is_refused(kind, text):
    with pytest.raises(ValidationError):
        parse_parameter(CheckKind(kind), text)
