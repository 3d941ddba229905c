"""The mapping page: editor, preview, suggestions, rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from apps.connectors.errors import ConfigurationError
from apps.connectors.types import NeutralType
from apps.engine.spec import FieldMappingSpec
from apps.mappings.admin.editor import editor_for, incompatibility
from apps.mappings.models import Mapping
from apps.mappings.selectors import mapping_spec
from apps.mappings.services import save_mapping
from tests.people import administrator, person, signed_in, viewer
from tests.platforms import Pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.add_customers(3)
    return pair


def posted(mapping: Mapping, **changes: str) -> dict[str, Any]:
    """The editor's form as stored, with some inputs changed; names are `right__part`."""
    spec = mapping_spec(mapping)
    editor = editor_for(mapping.left, mapping.right, spec.fields, spec.key)
    data: dict[str, Any] = {
        "name": mapping.name,
        "left_dataset": str(mapping.left_id),
        "right_dataset": str(mapping.right_id),
    }
    data |= {name: value for name, value in changes.items() if "__" not in name}
    for row in editor.rows:
        values = {"source": row.source, "expression": row.expression, "default": row.default}
        values |= {"back": row.expression_back, "back-to": row.back_to}
        values["key"] = "1" if row.is_key else ""
        for part, value in values.items():
            data[f"map-{row.number}-{part}"] = changes.get(f"{row.right}__{part}", value)
    return data


def change_url(mapping: Mapping) -> str:
    return reverse("admin:mappings_mapping_change", args=(mapping.pk,))


def test_saving_makes_a_new_version(pair):
    client = signed_in(administrator())
    data = posted(pair.mapping, note__source="field:name")
    assert client.post(change_url(pair.mapping), data).status_code == 302
    assert pair.mapping.current_version.number == 2
    assert pair.mapping.fields.get(right="note").left == "name"


def test_a_dataset_is_not_mapped_onto_itself(pair):
    pair.mapping.right = pair.mapping.left
    fields = [FieldMappingSpec(right="id", left="id")]
    with pytest.raises(ConfigurationError, match="both sides are"):
        save_mapping(pair.mapping, fields, ["id"], actor=None)


def test_saving_what_is_stored_makes_no_version(pair):
    signed_in(administrator()).post(change_url(pair.mapping), posted(pair.mapping))
    assert pair.mapping.versions.count() == 1


def test_a_wrong_expression_is_shown_in_its_row_with_everything_typed(pair):
    data = posted(pair.mapping, full_name__expression="lowr(name)")
    answer = signed_in(administrator()).post(change_url(pair.mapping), data)
    assert answer.status_code == 200
    row = answer.context["editor"].row("full_name")
    assert row.errors
    assert row.expression == "lowr(name)"
    assert pair.mapping.versions.count() == 1


def test_the_preview_shows_real_values_and_each_rows_error(pair):
    client = signed_in(administrator())
    data = posted(pair.mapping, mail__expression="lowr(email)")
    page = client.post(reverse("admin:mappings_mapping_preview"), data).content.decode()
    assert "<b>Name 1</b>" in page
    assert "lowr" in page
    assert page.count('id="ls-preview-') == len(pair.mapping.right.schema().fields)


def test_the_preview_looks_through_the_links_of_a_rule(pair):
    pair.run()
    client = signed_in(administrator())
    data = posted(pair.mapping, note__source="expression", note__expression="link('pair', id)")
    page = client.post(reverse("admin:mappings_mapping_preview"), data)
    number = page.context["editor"].row("note").number
    assert [sample.after for sample in page.context["cells"].by_row[number]] == ["1", "2", "3"]


def test_a_suggestion_waits_for_its_confirmation(pair):
    client = signed_in(administrator())
    data = posted(pair.mapping, balance__source="")
    page = client.post(reverse("admin:mappings_mapping_suggest"), data)
    row = page.context["editor"].row("balance")
    assert row.suggestion == "balance"
    assert not row.is_mapped


def test_without_the_authors_right_expressions_stay_as_they_are(pair):
    editor = person(
        "editor",
        "mappings.view_mapping",
        "mappings.change_mapping",
        "sources.view_dataset",
        "sources.view_source",
    )
    client = signed_in(editor)
    changed = posted(pair.mapping, full_name__expression="upper(name)")
    answer = client.post(change_url(pair.mapping), changed)
    assert answer.status_code == 200
    assert any("author expressions" in error for error in answer.context["errors"])
    unchanged = posted(pair.mapping, note__source="field:name")
    assert client.post(change_url(pair.mapping), unchanged).status_code == 302


def test_who_may_only_look_saves_nothing(pair):
    client = signed_in(viewer())
    assert client.get(change_url(pair.mapping)).status_code == 200
    assert client.post(change_url(pair.mapping), posted(pair.mapping)).status_code == 403
    preview = reverse("admin:mappings_mapping_preview")
    assert client.post(preview, posted(pair.mapping)).status_code == 403


def test_the_missing_target_is_created_and_mapped(pair):
    client = signed_in(administrator())
    values = {
        "left": str(pair.mapping.left_id),
        "source": str(pair.mapping.right.source_id),
        "name": "copies",
        "naming": "same",
    }
    answer = client.post(reverse("admin:mappings_mapping_create_target"), values)
    assert answer.status_code == 302
    assert pair.mapping.right.source.datasets.filter(name="copies").exists()
    assert client.get(answer["Location"]).status_code == 200


def test_a_name_that_is_taken_is_refused(pair, tmp_path):
    other = Pair(tmp_path, name="other")
    data = {**posted(other.mapping), "name": pair.mapping.name}
    answer = signed_in(administrator()).post(change_url(other.mapping), data)
    assert answer.status_code == 200
    assert any("already" in error for error in answer.context["errors"])


@pytest.mark.parametrize(
    ("left", "right", "fits"),
    [
        ("integer", "decimal(10,2)", True),
        ("text(20)", "text(10)", False),
        ("text(10)", "text(20)", True),
        ("boolean", "date", False),
        ("date", "timestamp", True),
    ],
)
def test_pairs_that_do_not_fit_are_flagged(left, right, fits):
    note = incompatibility(NeutralType.parse(left), NeutralType.parse(right))
    assert (note == "") is fits


BOTH_WAYS = {
    "both_ways": "1",
    "full_name__back": "upper(full_name)",
    "full_name__back-to": "name",
    "mail__source": "field:email",
    "match-0-field": "mail",
    "match-0-email": "1",
}


def test_the_way_back_and_match_fields_are_saved_and_shown(pair):
    client = signed_in(administrator())
    client.post(change_url(pair.mapping), posted(pair.mapping, **BOTH_WAYS))
    spec = pair.mapping.current_version.spec()
    name = next(field for field in spec.fields if field.right == "full_name")
    assert (name.left, name.to_right, name.to_left) == ("name", "trim(name)", "upper(full_name)")
    assert [(item.field, item.normalise) for item in spec.match] == [("mail", ("email",))]

    editor = client.get(change_url(pair.mapping)).context["editor"]
    assert editor.both_ways
    assert (editor.row("full_name").expression_back, editor.row("full_name").back_to) == (
        "upper(full_name)",
        "name",
    )
    assert editor.match_lines[0].field == "mail"


def test_an_expression_back_without_its_left_field_is_shown_in_its_row(pair):
    data = posted(pair.mapping, both_ways="1", full_name__back="upper(full_name)")
    page = signed_in(administrator()).post(change_url(pair.mapping), data)
    assert "Choose the left field" in page.context["editor"].row("full_name").errors[0]
    assert pair.mapping.versions.count() == 1


def test_the_preview_shows_what_becomes_of_left_records(pair):
    pair.on_right(
        "INSERT INTO clients (client_id, full_name, mail) VALUES (1, 'Anna', 'a@x.org'), "
        "(77, 'Nobody yet', 'n@x.org')"
    )
    url = reverse("admin:mappings_mapping_preview")
    page = signed_in(administrator()).post(url, posted(pair.mapping, **BOTH_WAYS))
    number = page.context["editor"].row("full_name").number
    first, second = page.context["cells"].back_by_row[number]
    assert (first.right, first.now, first.after, first.known) == (
        "Anna",
        " Name 1 ",
        "ANNA",
        True,
    )
    assert (second.right, second.after, second.known) == ("Nobody yet", "NOBODY YET", False)


def test_the_way_back_finds_left_records_by_their_match_fields(pair):
    """The key that the right side assigns does not flow back: the e-mail address tells."""
    pair.on_right("INSERT INTO clients (full_name, mail) VALUES ('Anna', ' N2@example.ORG')")
    url = reverse("admin:mappings_mapping_preview")
    data = posted(pair.mapping, **BOTH_WAYS, client_id__source="")
    page = signed_in(administrator()).post(url, data)
    number = page.context["editor"].row("full_name").number
    (sample,) = page.context["cells"].back_by_row[number]
    assert (sample.now, sample.after, sample.known) == (" Name 2 ", "ANNA", True)


def test_fields_that_flow_one_way_only_are_marked_as_derived(pair):
    url = reverse("admin:mappings_mapping_preview")
    page = signed_in(administrator()).post(url, posted(pair.mapping, both_ways="1"))
    rows = {row.right: row.is_derived for row in page.context["editor"].rows if row.is_mapped}
    assert rows == {"client_id": False, "full_name": True, "mail": True, "balance": False}
    assert page.content.decode().count("derived: left → right only") == 2


def test_matches_are_counted_and_ambiguous_ones_listed(pair):
    pair.on_left("UPDATE customers SET email = 'N1@example.org ' WHERE id = 2")
    pair.on_left("UPDATE customers SET email = NULL WHERE id = 3")
    pair.add_customers(1, start=8)
    pair.on_right(
        "INSERT INTO clients (client_id, full_name, mail) VALUES (5, 'One', 'n1@EXAMPLE.org'), "
        "(6, 'Eight', 'n8@example.org'), (7, 'Other', 'o@example.org')"
    )
    url = reverse("admin:mappings_mapping_matches")
    page = signed_in(administrator()).post(url, posted(pair.mapping, **BOTH_WAYS))
    report = page.context["matches"]
    assert (report.pairs, report.ambiguous) == (1, 1)
    assert (report.left.total, report.left.without_value, report.left.alone) == (4, 1, 0)
    assert (report.right.total, report.right.alone) == (3, 1)
    example = report.examples[0]
    assert (example.value, example.left, example.right) == ("n1@example.org", 2, 1)
    assert (set(example.left_keys), example.right_keys) == ({"1", "2"}, ("5",))


def test_checking_matches_needs_the_right_to_edit(pair):
    url = reverse("admin:mappings_mapping_matches")
    assert signed_in(viewer()).post(url, posted(pair.mapping)).status_code == 403
