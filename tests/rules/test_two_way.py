"""Two-way rules: what they say is in their version; what cannot work is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from apps.connectors.errors import ConfigurationError, LockstepError
from apps.connectors.types import NeutralType
from apps.engine.spec import (
    Approval,
    FieldMappingSpec,
    FieldPolicy,
    FieldPolicySpec,
    MatchFieldSpec,
    Winner,
)
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.selectors import rule_spec
from apps.rules.services import save_rule
from apps.rules.validation import fitting_policies, two_way_notes
from apps.sources.models import Dataset, Field
from tests.people import person
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, fields=PLAIN_FIELDS)


def two_way(pair: Pair, *policies: FieldPolicySpec, **facts: Any) -> Any:
    """The specification of the pair's rule, saved as a two-way one."""
    for name, value in {"direction": "two_way", **facts}.items():
        setattr(pair.rule, name, value)
    return save_rule(pair.rule, [], policies, actor=None).spec()


def policy(field: str, kind: str, **more: str) -> FieldPolicySpec:
    return FieldPolicySpec(field=field, policy=kind, **more)


def refusal(pair: Pair, *policies: FieldPolicySpec, **facts: Any) -> LockstepError:
    with pytest.raises(LockstepError) as caught:
        two_way(pair, *policies, **facts)
    return caught.value


def test_a_version_says_all_that_a_two_way_rule_says(pair):
    spec = two_way(
        pair,
        policy("balance", "counter"),
        policy("full_name", "expression", expression="coalesce(right_value, left_value)"),
        policy="left",
        first_contact="right",
        edit_delete="ask",
        on_right_delete="mark",
        left_mark_field="name",
        left_mark_value="gone",
        minimum_gap_seconds=5,
        tie="right",
        right_cursor_field="client_id",
        on_delete="approve",
        approval="first",
        approval_hours=4,
        four_eyes=True,
    )
    said = spec.two_way
    assert said.policy_of("balance").policy is FieldPolicy.COUNTER
    assert said.policy_of("mail").policy is FieldPolicy.LEFT
    assert said.policy_of("full_name").expression == "coalesce(right_value, left_value)"
    assert (said.first_contact, said.tie) == (Winner.RIGHT, Winner.RIGHT)
    assert (said.left_mark_field, said.left_mark_value) == ("name", "gone")
    assert (said.minimum_gap_seconds, said.right_cursor_field) == (5, "client_id")
    assert (said.edit_delete, said.on_right_delete, spec.on_delete) == ("ask", "mark", "approve")
    assert (spec.approval, spec.approval_hours, spec.four_eyes) == (Approval.FIRST, 4, True)


def test_policies_that_are_no_longer_said_are_gone_and_remembered(pair):
    two_way(pair, policy("balance", "counter"), policy("mail", "left"))
    two_way(pair, policy("balance", "highest"))
    assert [str(row) for row in pair.rule.field_policies.all()] == ["balance: Highest value wins"]
    kinds = pair.rule.field_policies.get().history.values_list("policy", flat=True)
    assert list(kinds) == ["highest", "counter"]


def test_a_rule_of_one_direction_says_nothing_two_way(pair):
    two_way(pair, policy("balance", "counter"))
    pair.rule.direction = "left_to_right"
    assert rule_spec(pair.rule).two_way is None


@pytest.mark.parametrize(
    ("wrong", "where", "says"),
    [
        (policy("mail", "counter"), "mail", "'counter' needs a number"),
        (policy("balance", "text"), "balance", "'text' needs a text"),
        (policy("balance", "set"), "balance", "'set' needs a text, an array or JSON"),
        (policy("note", "left"), "note", "not mapped"),
        (policy("nothing", "left"), "nothing", "no field 'nothing'"),
        (policy("mail", "expression", expression="other_value"), "mail", "other_value"),
        (policy("mail", "expression", expression="read_text('/x')"), "mail", "read_text"),
        (policy("balance", "expression", expression="left_value > 1"), "balance", "boolean"),
    ],
)
def test_a_policy_that_does_not_suit_its_field_is_refused(pair, wrong, where, says):
    error = refusal(pair, wrong)
    assert error.where == f"policy of field '{where}'"
    assert says in error.message


def test_the_policy_of_all_other_fields_must_suit_them(pair):
    error = refusal(pair, policy="text")
    assert error.where == "policy of field 'client_id'"
    others = [policy(name, "ask") for name in ("client_id", "balance")]
    assert two_way(pair, *others, policy="text").two_way.policy is FieldPolicy.TEXT


@pytest.mark.parametrize(
    ("facts", "where", "says"),
    [
        ({"policy": "newest"}, "", "needs left_modified and right_modified"),
        (
            {"policy": "newest", "left_modified": "changed", "right_modified": "mail"},
            "right modification time",
            "'newest' needs a timestamp",
        ),
        (
            {"first_contact": "newest", "left_modified": "x", "right_modified": "mail"},
            "left modification time",
            "no field 'x'",
        ),
        ({"on_right_delete": "mark"}, "", "name the left_mark_field"),
        (
            {"on_right_delete": "mark", "left_mark_field": "id"},
            "left mark field",
            "key field cannot be the mark",
        ),
        (
            {"on_right_delete": "mark", "left_mark_field": "balance", "left_mark_value": "gone"},
            "left mark field",
            "gone",
        ),
        ({"delta": "cursor", "cursor_field": "changed"}, "", "right_cursor_field"),
        ({"right_cursor_field": "nothing"}, "right cursor field", "no field 'nothing'"),
    ],
)
def test_what_contradicts_itself_is_refused(pair, facts, where, says):
    error = refusal(pair, **facts)
    assert says in error.message
    assert where in error.where


def test_both_sides_must_be_writable_and_the_left_key_known(pair):
    Dataset.objects.filter(pk=pair.mapping.left_id).update(writable=False)
    pair.rule.refresh_from_db()
    assert "cannot be written to" in refusal(pair).message
    Dataset.objects.filter(pk=pair.mapping.left_id).update(writable=True, key=[])
    pair.rule = Rule.objects.get(pk=pair.rule.pk)
    assert "key" in refusal(pair).message


def test_a_left_field_gets_its_value_back_from_one_right_field(pair):
    twice = [*PLAIN_FIELDS, FieldMappingSpec(right="note", left="email")]
    save_mapping(pair.mapping, twice, ["client_id"], actor=None)
    error = refusal(pair)
    assert "the left field 'email' would be written by 'mail', too" in error.message
    derived = [*PLAIN_FIELDS, FieldMappingSpec(right="note", to_right="email")]
    save_mapping(pair.mapping, derived, ["client_id"], actor=None)
    assert two_way(pair).two_way is not None


def test_a_computed_left_field_takes_no_value_back(pair):
    Field.objects.filter(dataset=pair.mapping.left, name="email").update(generated=True)
    assert "computed by its source" in refusal(pair).message


def test_an_expression_back_names_its_left_field(pair):
    fields = [
        *PLAIN_FIELDS[:2],
        FieldMappingSpec(right="mail", to_right="lower(email)", to_left="mail"),
    ]
    with pytest.raises(ConfigurationError, match="no left field") as caught:
        save_mapping(pair.mapping, fields, ["client_id"], actor=None)
    assert "'mail'" in caught.value.where


@pytest.mark.parametrize(
    ("match", "says"),
    [
        (MatchFieldSpec(field="note"), "not mapped"),
        (MatchFieldSpec(field="nothing"), "no field 'nothing'"),
        (MatchFieldSpec(field="balance", normalise=("case",)), "only texts"),
    ],
)
def test_match_fields_must_be_able_to_find_something(pair, match, says):
    with pytest.raises(LockstepError, match=says) as caught:
        save_mapping(pair.mapping, PLAIN_FIELDS, ["client_id"], [match], actor=None)
    assert caught.value.where == f"match field '{match.field}'"


def test_notes_say_what_is_derived_and_what_cannot_be_inserted(pair):
    fields = [
        *PLAIN_FIELDS[:2],
        FieldMappingSpec(right="mail", to_right="lower(email)"),
        FieldMappingSpec(right="note", constant="crm"),
    ]
    Field.objects.filter(dataset=pair.mapping.left, name="balance").update(nullable=False)
    save_mapping(pair.mapping, fields, ["client_id"], actor=None)
    spec = two_way(pair, policy("mail", "left"))
    notes = " ".join(two_way_notes(Mapping.objects.get().current_version.spec(), spec))
    assert "left to right only: mail, note." in notes
    assert "Without effect, because the field is derived: the policy of mail." in notes
    assert "cannot be inserted on the left: balance" in notes


def test_a_second_rule_between_the_same_datasets_is_refused_by_name(pair):
    two_way(pair)
    second = Rule(name="again", mapping=pair.mapping, direction="two_way")
    with pytest.raises(ConfigurationError, match="'again' → 'pair'"):
        save_rule(second, [], actor=None)


def test_writing_a_policy_expression_needs_its_permission(pair):
    operator = person("operator", "rules.view_rule", "rules.change_rule")
    pair.rule.direction = "two_way"
    asks = policy("mail", "expression", expression="coalesce(left_value, right_value)")
    with pytest.raises(PermissionDenied):
        save_rule(pair.rule, [], [asks], actor=operator)
    save_rule(pair.rule, [], [asks], actor=None)
    save_rule(pair.rule, [], [asks, policy("balance", "counter")], actor=operator)


def test_only_policies_that_suit_a_type_are_offered():
    assert FieldPolicy.COUNTER not in fitting_policies(NeutralType.parse("text(10)"))
    assert FieldPolicy.TEXT in fitting_policies(NeutralType.parse("text(10)"))
    assert set(fitting_policies(NeutralType.parse("uuid"))) == {
        FieldPolicy.ASK,
        FieldPolicy.LEFT,
        FieldPolicy.RIGHT,
        FieldPolicy.NEWEST,
        FieldPolicy.EXPRESSION,
    }
