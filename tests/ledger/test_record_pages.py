"""The record time machine: finding a record, its life across systems, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from apps.ledger.models import Change, Link
from apps.ledger.selectors.record_family import (
    Address,
    address_of,
    find_addresses,
    record_family,
    record_life,
)
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import RestoreRequest, Run
from apps.runs.services import work_until_finished
from tests.people import administrator, person, signed_in, viewer
from tests.two_way import TwoWay, account, key

pytestmark = pytest.mark.django_db(transaction=True)
FIND = "admin:ledger_change_find"


@pytest.fixture
def pair(tmp_path: Path) -> TwoWay:
    """A record 1 that was inserted, renamed in the CRM and given another phone in Billing."""
    pair = TwoWay(tmp_path)
    pair.add_contacts(3)
    pair.run()
    pair.on_left("UPDATE contacts SET name = 'Maria López' WHERE id = 1")
    pair.run()
    pair.on_right("UPDATE accounts SET phone = '+49 30 1' WHERE account_id = 1")
    pair.run()
    return pair


def every() -> list[Rule]:
    return list(Rule.objects.select_related("mapping"))


def address(pair: TwoWay, number: int = 1, side: str = "right") -> str:
    dataset = getattr(pair.mapping, side)
    at = Address(dataset.pk, key(number))
    return reverse("admin:ledger_change_record", args=(dataset.pk, at.digest))


def applied(operation: str = "") -> list[Change]:
    rows = Change.objects.filter(outcome="applied", right_key=key(1)).order_by("id")
    return [c for c in rows if operation in ("", c.operation)]


# Finding


@pytest.mark.parametrize("text", ["1", " 1 ", '["1"]'])
def test_a_record_is_found_by_its_key_and_opens_at_once(pair, text):
    page = signed_in(administrator()).get(reverse(FIND), {"key": text})
    assert page["Location"] in (address(pair, side="left"), address(pair, side="right"))


def test_a_key_that_nobody_knows_is_answered_with_what_can_be_searched(pair):
    shown = signed_in(administrator()).get(reverse(FIND), {"key": "4711"}).content.decode()
    assert "No rule has ever linked or written" in shown
    assert "another value, search below" in shown


def test_the_same_key_in_two_rules_is_two_records(pair, tmp_path):
    other = TwoWay(tmp_path, name="Others")
    other.add_contacts(1)
    other.run()
    client = signed_in(administrator())
    page = client.get(reverse(FIND), {"key": "1"})
    assert len(page.context["hits"]) == 2
    one = client.get(reverse(FIND), {"key": "1", "rule": str(other.rule.pk)})
    assert (
        str(other.mapping.left_id) in one["Location"]
        or str(other.mapping.right_id) in one["Location"]
    )


def test_a_record_is_found_by_a_value_in_the_source_itself(pair):
    client = signed_in(administrator())
    where = f"{pair.mapping.left_id}:mail"
    live = reverse("admin:ledger_change_live")
    page = client.post(live, {"where": where, "value": "m.lopez2@example.com"})
    assert [hit["key"] for hit in page.context["hits"]] == [key(2)]
    nothing = client.post(live, {"where": where, "value": "nobody@example.com"})
    assert nothing.context["hits"] == []
    assert "No record of" in nothing.content.decode()
    assert client.post(live, {"where": "x:y", "value": "1"}).status_code == 404
    wrong = client.post(live, {"where": f"{pair.mapping.left_id}:credit", "value": "much"})
    assert wrong.status_code == 200


def test_a_deleted_record_is_still_found(pair):
    pair.on_left("DELETE FROM contacts WHERE id = 1")
    pair.run()
    assert not Link.objects.filter(right_key=key(1)).exists()
    page = signed_in(administrator()).get(reverse(FIND), {"key": "1"}, follow=True)
    operations = [version.change.operation for version in page.context["versions"]]
    assert operations[0] == "delete"
    assert operations[-1] == "insert"


# One record


def test_the_page_shows_every_version_with_run_rule_version_and_cause(pair):
    page = signed_in(administrator()).get(address(pair))
    shown = [(v.change.operation, v.system) for v in page.context["versions"]]
    assert shown == [("update", "CRM"), ("update", "Billing"), ("insert", "Billing")]
    body = page.content.decode()
    assert "Maria López" in body
    assert "version 1" in body
    assert page.context["permalink"] == f"http://testserver{address(pair)}"


def test_both_addresses_show_the_same_life(pair):
    client = signed_in(administrator())
    lives = [
        [v.change.pk for v in client.get(address(pair, side=side)).context["versions"]]
        for side in ("left", "right")
    ]
    assert lives[0] == lives[1]


def test_a_record_is_followed_through_rules_that_share_a_dataset(pair, tmp_path):
    from apps.engine.spec import FieldMappingSpec
    from apps.mappings.models import Mapping
    from apps.mappings.services import save_mapping
    from apps.rules.services import save_rule
    from apps.runs.services import request_run
    from tests.platforms import sqlite_source

    archive = sqlite_source(
        "Archive", tmp_path / "archive.db", "CREATE TABLE people (nr INTEGER PRIMARY KEY, n TEXT)"
    )
    mapping = Mapping(name="Archive", left=pair.mapping.right, right=archive.datasets.get())
    fields = [
        FieldMappingSpec(right="nr", left="account_id"),
        FieldMappingSpec(right="n", left="display_name"),
    ]
    save_mapping(mapping, fields, ["nr"], actor=None)
    rule = Rule(name="Archive", mapping=mapping)
    save_rule(rule, [], actor=None)
    work_until_finished(request_run(rule, actor=None))
    family = record_family(every(), Address(pair.mapping.left_id, key(1)))
    datasets = {a.dataset_id for a in family.addresses}
    assert datasets == {pair.mapping.left_id, pair.mapping.right_id, mapping.right_id}
    assert {change.rule_id for change in record_life(family)} == {pair.rule.pk, rule.pk}
    page = signed_in(administrator()).get(
        reverse(
            "admin:ledger_change_record",
            args=(mapping.right_id, Address(mapping.right_id, key(1)).digest),
        )
    )
    assert {v.system for v in page.context["versions"]} == {"CRM", "Billing", "Archive"}


def test_how_it_was_at_a_moment(pair):
    insert, rename, _ = applied()
    client = signed_in(administrator())

    def row(moment: Any, name: str) -> list[Any]:
        text = moment.isoformat() if moment else ""
        page = client.get(address(pair), {"as_of": text} if text else {})
        (member,) = page.context["members"]
        found = {r.name: [cell.text for cell in r.cells] for r in member["rows"]}
        return found.get(name)

    assert row(insert.settled_at, "display_name") == ["Maria Lopez 1", "Maria Lopez 1"]
    assert row(rename.settled_at, "display_name") == ["Maria López", "Maria López"]
    assert row(rename.settled_at, "phone")[1] == "+34 911 555 001"
    assert row(None, "phone") == ["+49 30 1", "+49 30 1"]
    early = client.get(address(pair), {"as_of": "2001-01-01T00:00"}).content.decode()
    assert "Nothing was known of it at that moment" in early
    assert client.get(address(pair), {"as_of": "nonsense"}).status_code == 200


def test_two_versions_are_compared(pair):
    insert, rename, _ = applied()
    client = signed_in(administrator())
    page = client.get(address(pair), {"a": rename.pk, "b": insert.pk})
    comparison = page.context["comparison"]
    assert (comparison["first"].change, comparison["second"].change) == (insert, rename)
    billing = dict(comparison["sides"])["Billing"]
    assert [row.name for row in billing if row.differs] == ["display_name"]
    assert client.get(address(pair), {"a": "x", "b": "-1"}).context["comparison"] is None


def test_a_value_that_lost_is_marked(tmp_path):
    pair = TwoWay(tmp_path, facts={"policy": "left"})
    pair.add_contacts(1)
    pair.run()
    pair.on_left("UPDATE contacts SET name = 'winner' WHERE id = 1")
    pair.on_right("UPDATE accounts SET display_name = 'loser' WHERE account_id = 1")
    pair.run()
    page = signed_in(administrator()).get(address(pair))
    (lost,) = [version for version in page.context["versions"] if version.lost]
    assert [(f.name, f.old, f.new) for f in lost.fields] == [("display_name", "loser", "winner")]
    assert "lost values kept here" in page.content.decode()


# The way back


def names(pair: TwoWay) -> tuple[str, str]:
    return pair.contacts()[0][1], pair.accounts()[0][1]


def test_a_record_goes_back_to_a_version(pair):
    insert = applied("insert")[0]
    client = signed_in(administrator())
    data = {
        "rule": pair.rule.pk,
        "left_key": key(1),
        "right_key": key(1),
        "after_change": insert.pk,
    }
    client.post(reverse("admin:runs_run_undo"), data)
    preview = work_until_finished(Run.objects.get(kind="undo"))
    shown = client.get(reverse("admin:runs_run_change", args=(preview.pk,)))
    assert shown.context["undo"].to_write == 2, preview.cause
    assert "back to an earlier version" in shown.content.decode()
    address_of_undo = reverse("admin:runs_run_undo_apply", args=(preview.pk,))
    client.post(address_of_undo, {"reason": "ticket 9"})
    work_until_finished(Run.objects.get(kind="undo", mode="apply"))
    assert pair.accounts()[0][1] == "Maria Lopez 1"
    assert pair.contacts()[0][3] == "+34 911 555 001"
    undone = client.get(address(pair)).content.decode()
    assert "ticket 9" in undone


def test_a_record_goes_back_to_a_moment(pair):
    _, rename, _ = applied()
    client = signed_in(administrator())
    data = {"rule": pair.rule.pk, "left_key": key(1), "right_key": key(1)}
    data["as_of"] = rename.settled_at.isoformat()
    client.post(reverse("admin:runs_run_undo"), data)
    preview = work_until_finished(Run.objects.get(kind="undo"))
    page = client.get(reverse("admin:runs_run_change", args=(preview.pk,)))
    assert page.context["undo"].to_write == 1
    assert page.context["undo"].target == "CRM"


def test_who_may_not_write_asks_for_a_version_with_a_reason(pair):
    insert = applied("insert")[0]
    rights = ("ledger.view_change", "rules.view_rule", "runs.view_run")
    asking = ("runs.add_restorerequest", "runs.view_restorerequest")
    client = signed_in(person("support", *rights, *asking))
    page = client.get(address(pair)).content.decode()
    assert "Ask for this version" in page
    data = {
        "rule": pair.rule.pk,
        "left_key": key(1),
        "right_key": key(1),
        "after_change": insert.pk,
    }
    answer = client.post(reverse("admin:runs_run_undo"), data)
    carried = dict(answer.context["carried"])
    client.post(reverse("admin:runs_run_undo"), {**carried, "ask": "1", "reason": "call of today"})
    request = RestoreRequest.objects.get()
    assert (request.reason, request.scope["after_change"]) == ("call of today", insert.pk)
    shown = client.get(reverse("admin:runs_restorerequest_change", args=(request.pk,)))
    assert "The record in the time machine" in shown.content.decode()


def test_one_record_is_synced_at_once(pair):
    pair.on_left("UPDATE contacts SET name = 'x'")
    client = signed_in(administrator())
    data = {"rule": pair.rule.pk, "left_key": key(1), "right_key": key(1)}
    client.post(reverse("admin:ledger_change_sync"), data)
    run = work_until_finished(Run.objects.order_by("-created_at").first())
    assert run.trigger == "records"
    assert [row[1] for row in pair.accounts()] == ["x", "Maria Lopez 2", "Maria Lopez 3"]


def test_why_it_did_not_sync_is_answered(pair):
    pair.on_left("UPDATE contacts SET name = 'l' WHERE id = 1")
    pair.on_right("UPDATE accounts SET display_name = 'r' WHERE account_id = 1")
    pair.run()
    client = signed_in(administrator())
    page = client.get(address(pair), {"why": str(pair.rule.pk)})
    assert page.context["findings"][0].reason == "conflict"
    conflict = page.context["conflicts"][0]
    link = reverse("admin:ledger_conflict_change", args=(conflict.pk,))
    assert page.content.decode().count(link) == 2


def test_a_record_that_no_rule_has_met_is_asked_about_by_its_key(pair):
    pair.rule.filter = "credit < 1000"
    save_rule(pair.rule, [], actor=None)
    pair.on_left("INSERT INTO contacts (id, name, credit) VALUES (9, 'Rich', 9999)")
    pair.run()
    client = signed_in(administrator())
    asked = client.get(reverse(FIND), {"key": "9"}).context["unknown"]
    reasons = {}
    for place in asked:
        page = client.get(place["url"])
        reasons[place["dataset"]] = page.context["findings"][0].reason
        assert "Sync this record now" in page.content.decode()
    assert reasons == {pair.mapping.left: "filtered_out", pair.mapping.right: "never_seen"}


def test_a_record_that_waits_to_be_matched_is_found_by_its_key(pair):
    pair.meet({"kind": "match", "left_key": key(70), "left": account(70)})
    page = signed_in(administrator()).get(reverse(FIND), {"key": "70"}, follow=True)
    assert [conflict.kind for conflict in page.context["conflicts"]] == ["match"]


def test_both_sides_are_read_this_moment(pair):
    pair.on_left("UPDATE contacts SET name = 'unsynced' WHERE id = 1")
    page = signed_in(administrator()).get(address(pair), {"now": str(pair.rule.pk)})
    rows = {row.name: [cell.text for cell in row.cells] for row in page.context["now_rows"]}
    assert rows["display_name"] == ["unsynced", "Maria López"]
    assert "The sides differ" in page.content.decode()


def test_looking_needs_its_permission_and_writing_its_own(pair):
    stranger = signed_in(person("stranger", "runs.view_run"))
    for page in (reverse(FIND), address(pair)):
        assert stranger.get(page).status_code == 403
    live = reverse("admin:ledger_change_live")
    assert stranger.post(live, {"where": f"{pair.mapping.left_id}:mail"}).status_code == 403
    looker = signed_in(viewer())
    shown = looker.get(address(pair)).content.decode()
    assert "Back to this version" not in shown
    assert "Sync this record now" not in shown
    data = {"rule": pair.rule.pk, "left_key": key(1), "right_key": key(1)}
    assert looker.post(reverse("admin:ledger_change_sync"), data).status_code == 403
    assert looker.post(reverse("admin:runs_run_undo"), data).status_code == 403
    assert Run.objects.filter(trigger="records").count() == 0


def test_no_get_changes_anything(pair):
    client = signed_in(administrator())
    for name in ("live", "sync"):
        assert client.get(reverse(f"admin:ledger_change_{name}")).status_code == 405


def test_an_address_that_is_no_record_is_not_found(pair):
    client = signed_in(administrator())
    for digest in ("0" * 32, "nothex"):
        page = reverse("admin:ledger_change_record", args=(pair.mapping.left_id, digest))
        assert client.get(page).status_code == 404


def test_the_key_helps_where_the_hash_alone_finds_nothing(pair):
    at = Address(pair.mapping.right_id, key(99))
    page = reverse("admin:ledger_change_record", args=(at.dataset_id, at.digest))
    client = signed_in(administrator())
    assert client.get(page).status_code == 404
    assert client.get(page, {"key": key(99)}).status_code == 200
    assert address_of(every(), at.dataset_id, at.digest) is None
    assert find_addresses(every(), "99") == []


def test_the_page_asks_the_same_number_of_queries_for_a_long_life(
    pair, django_assert_max_num_queries
):
    client = signed_in(administrator())
    for number in range(6):
        pair.on_left("UPDATE contacts SET name = ? WHERE id = 1", f"name {number}")
        pair.run()
    client.get(address(pair))
    with django_assert_max_num_queries(60):
        page = client.get(address(pair))
    assert len(page.context["versions"]) == 9
