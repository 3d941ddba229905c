"""Configuration files: what they say is what there is; what is wrong is named with its place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied

from apps.accounts.models import User
from apps.connectors.errors import ConfigurationError
from apps.mappings.models import LookupTable, Mapping
from apps.rules.configuration import (
    ConfigurationFileError,
    apply,
    export_text,
    read_file,
    read_text,
)
from apps.rules.configuration.diff import Action, Diff
from apps.rules.configuration.resolving import SecretInFile, renamed, resolved_settings
from apps.rules.configuration.schema import SourceSection
from apps.rules.models import Rule
from apps.sources.models import Dataset, Field, Source
from apps.sources.services import save_source

pytestmark = pytest.mark.django_db

TEXT = """
sources:
  crm:
    connector: sqlite
    settings:
      path: ${FOLDER}/crm.db
    owner: Sales
  warehouse:
    connector: sqlite
    settings:
      path: ${FOLDER}/warehouse.db
lookups:
  countries:
    description: Country names
    entries:
      NO: Norway
      DE: Germany
datasets:
  "crm: people":
    cursor_field: changed
    subject_field: id
    fields:
      email: contact
mappings:
  people:
    left: "crm: people"
    right: "warehouse: person"
    key: [person_id]
    fields:
      person_id: id
      mail:
        expression: lower(trim(email))
      country:
        expression: lookup('countries', country)
        default: Elsewhere
      origin:
        constant: crm
rules:
  people:
    enabled: true
    filter: email IS NOT NULL
    on_delete: ignore
    checks:
      Mail looks right:
        kind: pattern
        field: mail
        pattern: "[^@]+@[^@]+"
    guards:
      max_deletes: 5
    schedule:
      daily_at: 06:30
      time_zone: Europe/Berlin
      verify_hours: 168
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    with sqlite3.connect(tmp_path / "crm.db") as database:
        database.executescript(
            """
            CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(60), country TEXT,
                                 changed TIMESTAMP);
            CREATE TABLE Artist (ArtistId INTEGER PRIMARY KEY, Name VARCHAR(120));
            CREATE TABLE Album (AlbumId INTEGER PRIMARY KEY, Title VARCHAR(160) NOT NULL,
                                ArtistId INTEGER REFERENCES Artist (ArtistId));
            """
        )
    with sqlite3.connect(tmp_path / "warehouse.db") as database:
        database.execute(
            "CREATE TABLE person (person_id INTEGER PRIMARY KEY, mail TEXT, country TEXT, "
            "origin TEXT)"
        )
    return {"FOLDER": str(tmp_path)}


def actions(diff: Diff) -> dict[str, str]:
    return {f"{e.kind} {e.name}": str(e.action) for e in diff.entries}


def test_a_file_creates_everything_it_describes(variables: dict[str, str]) -> None:
    diff = apply(read_text(TEXT), actor=None, variables=variables)

    assert set(actions(diff).values()) == {"created", "updated"}
    rule = Rule.objects.get(name="people")
    assert rule.enabled
    assert rule.schedule_since is not None
    assert str(rule.daily_at) == "06:30:00"
    assert rule.max_deletes == 5
    assert rule.max_deletes_percent == 50
    assert rule.current_version.spec().checks[0].pattern == "[^@]+@[^@]+"
    assert LookupTable.objects.get().entries.get(key="NO").value == "Norway"
    assert Field.objects.get(name="email").personal_data == "contact"
    assert Dataset.objects.get(name="people").cursor_field == "changed"


def test_a_second_application_changes_nothing(variables: dict[str, str]) -> None:
    apply(read_text(TEXT), actor=None, variables=variables)
    versions = Rule.objects.get().versions.count()
    histories = Rule.history.count() + Mapping.history.count() + Source.history.count()

    diff = apply(read_text(TEXT), actor=None, variables=variables)

    assert diff.is_empty
    assert Rule.objects.get().versions.count() == versions
    assert Rule.history.count() + Mapping.history.count() + Source.history.count() == histories


def test_a_changed_fact_is_shown_before_and_after(variables: dict[str, str]) -> None:
    apply(read_text(TEXT), actor=None, variables=variables)

    changed = TEXT.replace("06:30", "07:00").replace("constant: crm", "constant: sales")
    diff = apply(read_text(changed), actor=None, variables=variables)

    shown = {entry.kind: [str(c) for c in entry.changes] for entry in diff.of(Action.UPDATED)}
    assert shown == {
        "mapping": ["fields.origin.constant: crm → sales"],
        "rule": ["schedule.daily_at: 06:30:00 → 07:00:00"],
    }


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ("subject_field: nobody", "'nobody' is no field"),
        ('depends_on: ["crm: people"]', "depends on itself"),
    ],
)
def test_facts_of_a_dataset_that_lead_nowhere_are_refused(
    variables: dict[str, str], fact: str, words: str
) -> None:
    text = TEXT.replace("subject_field: id", fact)
    with pytest.raises(ConfigurationError, match=words):
        apply(read_text(text), actor=None, variables=variables)


def test_a_dry_application_leaves_everything_as_it_was(variables: dict[str, str]) -> None:
    text = TEXT.replace("warehouse: person", "warehouse: new_person").replace(
        "    key: [person_id]", "    key: [person_id]\n    create: true"
    )

    diff = apply(read_text(text), actor=None, variables=variables, dry=True)

    assert "table warehouse: new_person" in actions(diff)
    assert not Source.objects.exists()
    assert not Rule.objects.exists()
    with sqlite3.connect(Path(variables["FOLDER"]) / "warehouse.db") as database:
        assert not list(database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'new_person'"))


def test_a_missing_target_is_created_from_the_mapping(variables: dict[str, str]) -> None:
    text = TEXT.replace("warehouse: person", "warehouse: new_person").replace(
        "    key: [person_id]", "    key: [person_id]\n    create: true"
    )

    apply(read_text(text), actor=None, variables=variables)
    again = apply(read_text(text), actor=None, variables=variables)

    created = Dataset.objects.get(name="new_person").schema()
    assert created.key == ("person_id",)
    assert {f.name: str(f.type) for f in created.fields} == {
        "person_id": "integer",
        "mail": "text",
        "country": "text",
        "origin": "text",
    }
    assert again.is_empty


SYNC = """
sources:
  crm: {connector: sqlite, settings: {path: "${FOLDER}/crm.db"}}
  warehouse: {connector: sqlite, settings: {path: "${FOLDER}/warehouse.db"}}
syncs:
  music:
    from: crm
    to: warehouse
    datasets: [Album, Artist]
    naming: snake_case
    create: true
    rule:
      on_delete: propagate
"""


def test_a_sync_block_stands_for_many_mappings_and_rules(variables: dict[str, str]) -> None:
    apply(read_text(SYNC), actor=None, variables=variables)

    album = Rule.objects.get(name="music/Album")
    assert [other.name for other in album.depends_on.all()] == ["music/Artist"]
    assert list(album.mapping.key) == ["album_id"]
    assert [(f.left, f.right) for f in album.mapping.fields.all()] == [
        ("AlbumId", "album_id"),
        ("Title", "title"),
        ("ArtistId", "artist_id"),
    ]
    assert apply(read_text(SYNC), actor=None, variables=variables).is_empty


def test_a_left_field_without_counterpart_is_named(variables: dict[str, str]) -> None:
    with sqlite3.connect(Path(variables["FOLDER"]) / "warehouse.db") as database:
        database.execute("CREATE TABLE artist (artist_id INTEGER PRIMARY KEY)")

    with pytest.raises(ConfigurationError) as caught:
        apply(read_text(SYNC, "f.yaml"), actor=None, variables=variables)

    assert "'Name' has no counterpart 'name'" in caught.value.message
    assert "f.yaml, line 6, syncs.music" in caught.value.where


def test_what_is_exported_can_be_applied_and_changes_nothing(variables: dict[str, str]) -> None:
    apply(read_text(TEXT + SYNC[SYNC.index("syncs:") :]), actor=None, variables=variables)

    exported = export_text()

    assert apply(read_text(exported), actor=None, variables={}).is_empty


def test_limits_of_a_source_are_applied_and_exported(variables: dict[str, str]) -> None:
    limited = TEXT.replace("    owner: Sales\n", "    owner: Sales\n    most_partitions: 4\n")
    apply(read_text(limited), actor=None, variables=variables)
    source = Source.objects.get(most_partitions=4)
    assert f"most_partitions: {source.most_partitions}" in export_text()
    apply(read_text(TEXT), actor=None, variables=variables)
    source.refresh_from_db()
    assert source.most_partitions is None, "what is left out has its default"
    with pytest.raises(ConfigurationFileError, match="most_partitions"):
        read_text(limited.replace("most_partitions: 4", "most_partitions: 0"))


def test_a_secret_leaves_in_no_form(variables: dict[str, str], tmp_path: Path) -> None:
    source = Source(name="My shop (EU)", connector="postgresql")
    secret = "s3cret-of-the-shop"
    save_source(source, {"host": "h", "database": "d", "user": "u", "password": secret}, actor=None)

    text = export_text()
    diff = apply(  # nothing names a dataset, so the source is not read
        read_text(text), actor=None, variables={"MY_SHOP_EU_PASSWORD": "another-secret"}
    )

    assert "password: ${MY_SHOP_EU_PASSWORD}" in text
    assert secret not in text
    assert "another-secret" not in repr(diff)
    assert secret not in repr(diff)
    assert [str(c) for c in diff.entries[0].changes] == ["settings.password: (stored) → (replaced)"]
    source.refresh_from_db()
    assert source.secrets() == {"password": "another-secret"}


def test_a_literal_secret_is_refused_and_not_repeated() -> None:
    section = SourceSection(connector="postgresql", settings={"password": "hunter2"})

    with pytest.raises(SecretInFile) as caught:
        resolved_settings(section, {}, lambda _: {})

    assert "hunter2" not in str(caught.value) + caught.value.remedy
    assert "${PASSWORD}" in caught.value.remedy


def test_a_variable_that_is_not_set_is_named(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        apply(read_text(TEXT, "f.yaml"), actor=None, variables={})

    assert caught.value.message == "the environment variable FOLDER is not set"
    assert caught.value.where == "f.yaml, line 5, sources.crm.settings: path"


def test_dollars_can_be_written(tmp_path: Path) -> None:
    section = SourceSection(connector="sqlite", settings={"path": "/data/$${A}/${B}"})

    assert resolved_settings(section, {"B": "x"}, lambda _: {}) == {"path": "/data/${A}/x"}


@pytest.mark.parametrize(
    ("old", "new", "place", "message", "remedy"),
    [
        ("filter:", "filtre:", "line 41, rules.people.filtre", "unknown key", "Write `filter`."),
        ("expression: lower", "expresion: lower", "mappings.people.fields.mail", "unknown key",
         "Write `expression`."),
        ("daily_at: 06:30", "cron: 61 * * * *", "rules.people.schedule.cron",
         "'61 * * * *' is no cron expression", "Five fields"),
        ("Europe/Berlin", "Europe/Berlun", "rules.people.schedule.time_zone", "no time zone",
         "Europe/Berlin"),
        ('"crm: people"\n    right', "people\n    right", "mappings.people.left",
         "names no dataset", "colon"),
        ("on_delete: ignore", "on_delete: mark", "rules.people", "mark_field", ""),
        ("constant: crm", "constant: crm\n        from: id", "mappings.people.fields.origin",
         "exactly one", "right_field: left_field"),
        ("DE: Germany", "NO: Germany", "line 17", "stands here twice", ""),
        ("    owner: Sales", "  owner: Sales", "", "", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_place_and_remedy(
    old: str, new: str, place: str, message: str, remedy: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationFileError) as caught:
        read_text(TEXT.replace(old, new), "f.yaml")

    problem = caught.value.problems[0]
    assert problem.place.startswith("f.yaml, line ")
    assert place in problem.place
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("lower(trim(email))", "lower(trim(mail))", "mappings.people", "unknown field 'mail'"),
        ("filter: email", "filter: emial", "rules.people", "unknown field 'emial'"),
        ('right: "warehouse: person"', 'right: "warehouse: persons"', "mappings.people",
         "there is no dataset 'warehouse: persons'"),
        ("cursor_field: changed", "cursor_field: change", "datasets.crm: people",
         "'change' is no field"),
        ("connector: sqlite", "connector: sqlit", "sources.crm", "there is no connector 'sqlit'"),
        ("    enabled: true", "    depends_on: [other]", "rules.people",
         "there is no rule 'other'"),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_is_named_and_changes_nothing(
    variables: dict[str, str], old: str, new: str, place: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        apply(read_text(TEXT.replace(old, new, 1), "f.yaml"), actor=None, variables=variables)

    assert message in caught.value.message
    assert place in caught.value.where
    assert caught.value.remedy
    assert not Source.objects.exists()


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for one, other in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{one}: &{one} [{', '.join([f'*{other}'] * 9)}]")

    with pytest.raises(ConfigurationFileError, match="multiplies"):
        read_text("\n".join(lines))


def test_an_actor_needs_the_permissions(variables: dict[str, str]) -> None:
    actor = User.objects.create_user("editor")
    for model in ("source", "lookuptable", "dataset", "mapping", "rule"):
        actor.user_permissions.add(
            *Permission.objects.filter(codename__in=[f"add_{model}", f"change_{model}"])
        )

    with pytest.raises(PermissionDenied, match="may not discover sources"):
        apply(read_text(TEXT), actor=actor, variables=variables)
    further = ("view_source", "discover_source")
    actor.user_permissions.add(*Permission.objects.filter(codename__in=further))
    actor = User.objects.get(pk=actor.pk)
    with pytest.raises(PermissionDenied, match="expressions"):
        apply(read_text(TEXT), actor=actor, variables=variables)
    with pytest.raises(PermissionDenied, match="may not add sources"):
        apply(read_text(TEXT), actor=User.objects.create_user("other"), variables=variables)
    assert not Source.objects.exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationFileError, match="cannot be read"):
        read_file(tmp_path / "none.yaml")


def test_names_follow_their_naming_rule() -> None:
    assert renamed("MediaTypeId", "snake_case") == "media_type_id"
    assert renamed("media_type_id", "camelCase") == "mediaTypeId"
    assert renamed("Any Name", "same") == "Any Name"
