"""Two-way rules in configuration files: read, applied, compared, exported and read again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from apps.connectors.errors import ConfigurationError
from apps.mappings.models import Mapping
from apps.rules.configuration import ConfigurationFileError, apply, export_text, read_text
from apps.rules.configuration.diff import Action
from apps.rules.models import Rule
from apps.sources.models import Source
from apps.sources.services import save_source

pytestmark = pytest.mark.django_db

TEXT = """
sources:
  crm: {connector: sqlite, settings: {path: "${FOLDER}/crm.db"}}
  desk: {connector: sqlite, settings: {path: "${FOLDER}/desk.db"}}
mappings:
  people:
    left: "crm: people"
    right: "desk: contacts"
    key: [number]
    match:
      mail: [email]
      called: exact
    fields:
      number: id
      called: name
      mail:
        expression: lower(email)
        back: mail
        back_to: email
      points: points
rules:
  people:
    direction: two_way
    two_way:
      policy: left
      fields:
        points: counter
        called: {policy: expression, expression: "coalesce(right_value, left_value)"}
      first_contact: right
      on_right_delete: approve
      edit_delete: ask
    on_delete: approve
    approval: guard
    approval_hours: 24
    four_eyes: true
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    with sqlite3.connect(tmp_path / "crm.db") as database:
        database.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, email TEXT, points INTEGER)"
        )
    with sqlite3.connect(tmp_path / "desk.db") as database:
        database.execute(
            "CREATE TABLE contacts (number INTEGER PRIMARY KEY, called TEXT, mail TEXT, "
            "points INTEGER)"
        )
    return {"FOLDER": str(tmp_path)}


def test_a_file_says_all_that_a_two_way_rule_says(variables):
    apply(read_text(TEXT), actor=None, variables=variables)

    version = Rule.objects.get().current_version
    spec, mapping = version.spec(), version.mapping_version.spec()
    assert spec.two_way.policy == "left"
    assert spec.two_way.policy_of("points").policy == "counter"
    assert spec.two_way.policy_of("called").expression == "coalesce(right_value, left_value)"
    assert (spec.two_way.first_contact, spec.two_way.on_right_delete) == ("right", "approve")
    assert (spec.two_way.edit_delete, spec.on_delete) == ("ask", "approve")
    assert (spec.approval, spec.approval_hours, spec.four_eyes) == ("guard", 24, True)
    assert [(m.field, list(m.normalise)) for m in mapping.match] == [
        ("mail", ["email"]),
        ("called", []),
    ]
    mail = next(field for field in mapping.fields if field.right == "mail")
    assert (mail.left, mail.to_right, mail.to_left) == ("email", "lower(email)", "mail")


def test_applying_again_and_applying_the_export_change_nothing(variables):
    apply(read_text(TEXT), actor=None, variables=variables)
    assert apply(read_text(TEXT), actor=None, variables=variables).is_empty

    text = export_text()
    assert "points: counter" in text
    assert "called: exact" in text
    assert "back_to: email" in text
    Rule.objects.all().delete()
    Mapping.objects.all().delete()
    apply(read_text(text), actor=None, variables=variables)
    assert export_text() == text
    assert apply(read_text(TEXT), actor=None, variables=variables).is_empty


def test_what_changes_is_shown_fact_by_fact(variables):
    apply(read_text(TEXT), actor=None, variables=variables)
    changed = (
        TEXT.replace("points: counter", "points: highest")
        .replace("policy: left", "policy: right")
        .replace("      called: exact\n", "")
    )

    diff = apply(read_text(changed), actor=None, variables=variables)

    shown = {entry.kind: [str(c) for c in entry.changes] for entry in diff.of(Action.UPDATED)}
    assert shown == {
        "mapping": ["match.called: exact → (nothing)"],
        "rule": [
            "two_way.policy: left → right",
            "two_way.fields.points.policy: counter → highest",
        ],
    }
    assert Rule.objects.get().field_policies.get(field="points").policy == "highest"


def test_a_two_way_rule_needs_to_say_no_more_than_that(variables):
    text = TEXT[: TEXT.index("    two_way:")]
    apply(read_text(text), actor=None, variables=variables)
    assert Rule.objects.get().current_version.spec().two_way.policy == "ask"
    assert apply(read_text(export_text()), actor=None, variables=variables).is_empty


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("direction: two_way", "direction: left_to_right", "go together"),
        ("points: counter", "points: sometimes", "points.policy: input should be"),
        ("policy: left", "policy: newest", "needs left_modified and right_modified"),
        ("        back_to: email\n", "", "back and back_to go together"),
        ("called: exact", "called: [loud]", "'phone' or 'email'"),
    ],
)
def test_what_contradicts_itself_is_refused_when_the_file_is_read(old, new, says):
    with pytest.raises(ConfigurationFileError) as caught:
        read_text(TEXT.replace(old, new), "sync.yaml")
    assert says in str(caught.value)
    assert "sync.yaml, line" in str(caught.value)


def test_what_does_not_suit_the_datasets_is_refused_when_it_is_applied(variables):
    text = TEXT.replace("points: counter", "mail: counter")
    with pytest.raises(ConfigurationError, match="'counter' needs a number"):
        apply(read_text(text), actor=None, variables=variables)
    assert not Rule.objects.exists()


def test_a_circle_of_rules_is_refused_by_name(variables):
    second = TEXT[TEXT.index("    direction: two_way") :]
    text = TEXT + "  again:\n    mapping: people\n" + second
    with pytest.raises(ConfigurationError, match="through the rules 'again' → 'people'"):
        apply(read_text(text), actor=None, variables=variables)


def test_a_stored_secret_is_not_taken_for_a_source_that_the_file_moves(variables):
    settings = {"host": "one", "database": "d", "user": "u", "password": "of-host-one"}
    save_source(Source(name="shop", connector="postgresql"), settings, actor=None)
    text = """
sources:
  shop:
    connector: postgresql
    settings: {host: HOST, database: d, user: u, password: "${SHOP_PASSWORD}"}
"""
    assert apply(read_text(text.replace("HOST", "one")), actor=None, variables={}).is_empty
    with pytest.raises(ConfigurationError, match="SHOP_PASSWORD"):
        apply(read_text(text.replace("HOST", "two")), actor=None, variables={})
