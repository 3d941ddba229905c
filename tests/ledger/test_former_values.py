"""Records are found by what they were called, also when they are gone from every platform."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from apps.accounts.models import Grant
from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.core.clock import now
from apps.ledger.admin.records import finding
from apps.ledger.models import Change, FormerValue, Segment, SegmentContent
from apps.ledger.selectors import former_values as selecting
from apps.ledger.selectors.former_values import find_by_former_value
from apps.ledger.selectors.words import words_of
from apps.ledger.services import forget_rule, former_values, keep_former_values, maintain
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.runs.services import follow_searchable_fields, keep_former_values_of_runs
from apps.runs.services import former_values as keeping
from apps.sources import live
from apps.sources.models import Field
from tests.people import administrator, person, signed_in
from tests.two_way import FIELDS, TwoWay, key

LIVE = "admin:ledger_change_live"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("  Zoë MÜLLER-Lüdenscheidt ", ["zoe", "muller", "ludenscheidt"]),
        ("Maria <Maria.Lopez@Example.COM>", ["maria", "maria.lopez@example.com"]),
        ("+41 (0)79 123-45-67", ["#791234567"]),
        ("079 123 45 67", ["#791234567"]),
        ("Straße", ["strasse"]),
        ("\uff21\uff22\uff23 Ltd.", ["abc", "ltd"]),  # letters of full width
        ("李小龙", ["李小龙"]),
        ("120.50", ["120.5"]),
        ("7.0", ["7"]),
        ("7", ["7"]),
        ("-7", ["-7"]),
        ("-7.00", ["-7"]),
        ("+7.5", ["7.5"]),
        ("007", ["007"]),
        ("123456.50", ["123456.5"]),
        ("-123456", ["-123456"]),
        ("123456.00", ["#123456"]),
        ("123456", ["#123456"]),
        ("Order 123456, -7.50 off", ["order", "#123456", "-7.5", "off"]),
        ("Tel. +49-30-901820 (Maria)", ["tel", "#930901820", "maria"]),
        ("079.123.45.67", ["#791234567"]),
        ("a@b.example,d@e.example;f@g.example", ["a@b.example", "d@e.example", "f@g.example"]),
        ("mailto:A@B.example", ["a@b.example"]),
        ("mailto:a@b.example?subject=Hello", ["a@b.example", "subject", "hello"]),
        ("<a@b.example>", ["a@b.example"]),
        ("Write to 'a@b.example'.", ["write", "to", "a@b.example"]),
        ("@maria", ["maria"]),
        ("", []),
        ("—", []),
    ],
)
def test_a_value_is_cut_into_words_that_are_written_in_one_way(value, words):
    assert words_of(value) == words


def test_a_long_text_is_found_by_its_beginning():
    words = words_of(" ".join(f"w{n}" for n in range(10_000)))
    assert words[0] == "w0"
    assert len(words) == 20
    assert max(map(len, words_of("x" * 5_000))) <= 100


pages = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> TwoWay:
    """Three records; the first is renamed, and then gone on both platforms."""
    pair = TwoWay(tmp_path)
    pair.add_contacts(3)
    pair.on_left("UPDATE contacts SET name = 'Maria López', phone = '+49 30 901820' WHERE id = 1")
    pair.run()
    pair.on_left("UPDATE contacts SET name = 'Maria Weiß' WHERE id = 1")
    pair.run()
    pair.on_left("DELETE FROM contacts WHERE id = 1")
    pair.run()
    assert len(pair.accounts()) == 2
    keep_former_values_of_runs()
    return pair


def every() -> list[Rule]:
    return list(Rule.objects.select_related("mapping"))


def found(text: str) -> list[str]:
    return sorted({hit.address.key for hit in find_by_former_value(every(), text).hits})


@pages
def test_a_record_that_is_gone_is_found_by_names_numbers_and_mail_that_it_had(pair):
    for text in ("lopez", "maria LÓPEZ", "Weiß, Maria", "m.lopez1@example.com", "+49 30 901820"):
        assert found(text) == [key(1)], text
    for text in ("lopez weiss", "lop", "", "--", "nobody@example.com", "030 90182"):
        assert found(text) == [], text
    tokens = [bytes(token) for token in FormerValue.objects.values_list("token", flat=True)]
    assert all(len(token) == 16 and b"lopez" not in token for token in tokens)


@pages
def test_what_both_shelves_hold_is_found_until_its_time_is_over(pair):
    later = now() + timedelta(minutes=1)
    maintain(compact_before=later, expire_before=now() - timedelta(days=1), kept_runs=())
    assert not Change.objects.exists()
    assert Segment.objects.exists()
    assert found("lopez") == [key(1)]
    maintain(compact_before=later, expire_before=later, kept_runs=())
    assert not FormerValue.objects.exists()
    assert found("lopez") == []


@pages
def test_they_are_kept_once_and_forgotten_with_their_rule(pair):
    before = list(FormerValue.objects.order_by("pk").values_list("token", "change_id"))
    assert before
    Run.objects.update(former_values_kept=False)
    assert keep_former_values_of_runs() == Run.objects.count()
    assert list(FormerValue.objects.order_by("pk").values_list("token", "change_id")) == before
    assert keep_former_values_of_runs() == 0
    forget_rule(pair.rule.pk)
    assert not FormerValue.objects.exists()


@pages
def test_a_field_that_is_marked_later_is_searched_back_to_the_beginning(pair):
    pair.on_left("UPDATE contacts SET credit = 1 WHERE id = 2")
    pair.run()
    follow_searchable_fields()
    keep_former_values_of_runs()
    assert found("120.50") == []
    Field.objects.filter(dataset=pair.mapping.left, name="credit").update(searchable=True)
    assert follow_searchable_fields() == 1
    keep_former_values_of_runs()
    assert found("120.50") == [key(1), key(2)]
    assert follow_searchable_fields() == 0


@pages
def test_a_field_that_is_unmarked_is_searched_no_more_and_keeps_no_words(pair):
    before = FormerValue.objects.count()
    Field.objects.filter(name__in=("name", "display_name")).update(searchable=False)
    assert follow_searchable_fields() == 1
    assert not FormerValue.objects.exists()
    keep_former_values_of_runs()
    assert found("lopez") == []
    assert found("+49 30 901820") == [key(1)]
    assert 0 < FormerValue.objects.count() < before
    Field.objects.update(searchable=False)
    assert follow_searchable_fields() == 1
    assert not FormerValue.objects.exists()


def damage(run: Run) -> None:
    """What the run replaced cannot be opened any more."""
    Change.objects.filter(run_id=run.pk).update(sealed_images=b"\x02damaged")


@pages
def test_a_run_that_cannot_be_read_holds_up_no_other_and_is_tried_again_later(pair, monkeypatch):
    forget_all()
    renaming = Run.objects.order_by("finished_at")[1]
    kept = list(Change.objects.filter(run_id=renaming.pk).values_list("pk", "sealed_images"))
    damage(renaming)

    assert keep_former_values_of_runs() == Run.objects.count() - 1
    assert found("Weiß") == [key(1)]
    renaming.refresh_from_db()
    assert renaming.former_values_error == "protected.unreadable"
    assert "(protected.unreadable)" in renaming.log.last().message
    assert keep_former_values_of_runs() == 0  # not yet

    pauses = []
    for _ in range(3):
        Run.objects.filter(former_values_failures__gt=0).update(former_values_after=now())
        assert keep_former_values_of_runs() == 0
        renaming.refresh_from_db()
        pauses.append(renaming.former_values_after - now())
    assert pauses == sorted(pauses)
    assert renaming.log.filter(level="error").count() == 1

    for pk, sealed in kept:
        Change.objects.filter(pk=pk).update(sealed_images=sealed)
    Run.objects.filter(former_values_failures__gt=0).update(former_values_after=now())
    assert keep_former_values_of_runs() == 1
    renaming.refresh_from_db()
    assert (renaming.former_values_error, renaming.former_values_failures) == ("", 0)
    assert "can be found" in renaming.log.last().message


def forget_all() -> None:
    FormerValue.objects.all().delete()
    Run.objects.update(former_values_kept=False)


@pages
def test_an_error_that_nobody_foresaw_stops_no_other_run(pair, monkeypatch):
    forget_all()
    monkeypatch.setattr(former_values, "words_of", broken_once())
    assert keep_former_values_of_runs() == Run.objects.count() - 1
    assert Run.objects.get(former_values_kept=False).former_values_error == "internal"


def broken_once() -> Any:
    calls = iter([True])

    def words(value: str) -> list[str]:
        if next(calls, False):
            raise ValueError(f"cannot cut {value}")
        return words_of(value)

    return words


@pages
def test_the_overview_names_rules_whose_old_values_cannot_be_read(pair):
    forget_all()
    damage(Run.objects.order_by("finished_at")[1])
    client = signed_in(administrator())
    text = "cannot be found by searching"
    keep_former_values_of_runs()
    assert text not in client.get(reverse("admin:index")).content.decode()
    Run.objects.update(former_values_after=None)
    keep_former_values_of_runs()
    assert text in client.get(reverse("admin:index")).content.decode()


@pages
def test_a_hit_says_which_field_had_the_value_and_until_when(pair):
    hits = find_by_former_value(every(), "Lopez").hits
    assert [hit.fields for hit in hits] == [("display_name",)]
    last = Change.objects.filter(operation="update", side="right").latest("settled_at")
    assert hits[0].until == last.settled_at

    pair.on_left("UPDATE contacts SET name = 'Lopez & Lopez' WHERE id = 2")
    root = administrator()
    page = " ".join(search(root, "Maria Lopez").content.decode().split())
    assert "had it" in page
    assert 'in <span class="ls-mono">display_name</span> of Billing: accounts' in page
    page = search(root, "Lopez & Lopez").content.decode()
    assert "has it" in page


@pages
def test_what_was_cut_is_said(pair, monkeypatch):
    pair.on_left("UPDATE contacts SET name = 'New'")
    pair.run()
    keep_former_values_of_runs()
    pair.on_left("UPDATE contacts SET name = 'Same'")
    assert not find_by_former_value(every(), "Lopez").is_cut
    monkeypatch.setattr(selecting, "MOST_CHANGES", 2)
    monkeypatch.setattr(live, "MOST_FOUND", 1)
    monkeypatch.setattr(finding, "MOST_FOUND", 1)
    assert find_by_former_value(every(), "Lopez").is_cut
    root = administrator()
    assert "There may be more records that had this value" in search(root, "Lopez").content.decode()
    assert "More than 1 records" in search(root, "Same").content.decode()


@pages
def test_common_words_are_walked_through_in_chunks(pair, monkeypatch):
    pair.on_left("UPDATE contacts SET name = name || ' B'")
    pair.run()
    pair.on_left("UPDATE contacts SET name = name || ' C' WHERE id = 3")
    pair.run()
    keep_former_values_of_runs()
    whole = find_by_former_value(every(), "Maria Lopez")
    assert len(whole.hits) == 3
    monkeypatch.setattr(selecting, "FIRST_CHUNK", 1)
    monkeypatch.setattr(selecting, "LARGEST_CHUNK", 1)
    assert find_by_former_value(every(), "Maria Lopez") == whole
    monkeypatch.setattr(selecting, "MOST_WALKED", 1)
    begun = find_by_former_value(every(), "Maria Lopez")
    assert begun.hits == whole.hits[:1]
    assert begun.is_cut


@pages
def test_a_hit_that_cannot_be_read_is_said_and_hides_no_other(pair):
    pair.on_left("UPDATE contacts SET name = 'New' WHERE id = 2")
    run = pair.run()
    keep_former_values_of_runs()
    damage(run)
    root = administrator()
    page = search(root, "Lopez")
    assert [hit["key"] for hit in page.context["hits"]] == [key(1)]
    assert "Changes that cannot be read: 1." in page.content.decode()

    maintain(compact_before=now(), expire_before=now() - timedelta(days=1), kept_runs=[run.pk])
    SegmentContent.objects.update(content=b"damaged")
    assert search(root, "Lopez").context["hits"] == []


@pages
def test_two_workers_share_the_runs_and_keep_each_once(pair, monkeypatch):
    forget_all()
    seen: list[Any] = []

    def and_another(rule_id: Any, run_id: Any, names: Any, *, before_each: Any) -> None:
        seen.append(run_id)
        if len(seen) == 1:
            assert keep_former_values_of_runs() == Run.objects.count() - 1
        keep_former_values(rule_id, run_id, names, before_each=before_each)

    monkeypatch.setattr(keeping, "keep_former_values", and_another)
    assert keep_former_values_of_runs() == 1
    assert len(seen) == len(set(seen)) == Run.objects.count()
    assert found("lopez") == [key(1)]


@pages
def test_a_worker_that_has_lost_its_run_writes_nothing(pair, monkeypatch):
    """Fields were unmarked while it read: its words would stay for ever."""
    forget_all()

    def too_late(rule_id: Any, run_id: Any, names: Any, *, before_each: Any) -> None:
        Field.objects.update(searchable=False)
        follow_searchable_fields()
        keep_former_values(rule_id, run_id, names, before_each=before_each)

    monkeypatch.setattr(keeping, "keep_former_values", too_late)
    assert keep_former_values_of_runs() == Run.objects.count() - 1
    assert not FormerValue.objects.exists()
    assert Run.objects.filter(former_values_kept=False).exists()


@pages
def test_a_long_backlog_is_worked_off_in_turns(pair):
    forget_all()
    assert keep_former_values_of_runs(seconds=0) == 1
    assert keep_former_values_of_runs() == Run.objects.count() - 1


@pages
def test_what_a_lost_worker_had_begun_is_gone_on_with_when_its_lease_is_over(pair):
    forget_all()
    Run.objects.update(former_values_after=now() + timedelta(minutes=1))
    assert keep_former_values_of_runs() == 0
    Run.objects.update(former_values_after=now())
    assert keep_former_values_of_runs() == Run.objects.count()


def search(user: Any, text: str) -> Any:
    return signed_in(user).post(reverse(LIVE), {"where": "", "value": text})


@pages
def test_the_page_finds_what_is_there_and_what_is_gone(pair):
    root = administrator()
    gone = search(root, "Maria Lopez")
    assert [hit["key"] for hit in gone.context["hits"]] == [key(1)]
    there = search(root, "m.lopez2@example.com")
    assert [hit["key"] for hit in there.context["hits"]] == [key(2)]
    nobody = search(root, "Nobody Nowhere")
    assert nobody.context["hits"] == []
    assert "in a field that is searchable" in nobody.content.decode()
    event = AuditEvent.objects.filter(action=Act.RECORDS_SEARCHED).order_by("at").first()
    assert "lopez" not in str(event.details).lower()
    names = {field.rpartition(": ")[2] for field in event.details["fields"]}
    assert names == {"display_name", "email_address", "mail", "name", "phone"}
    stranger = person("stranger", "ledger.view_change", "rules.view_rule", reaches_all=False)
    assert search(stranger, "Maria Lopez").context["hits"] == []


@pages
def test_nobody_searches_fields_that_no_rule_of_theirs_maps(pair):
    """Whether a value is there would be known of any column of the table."""
    save_mapping(
        pair.mapping, [f for f in FIELDS if f.left != "credit"], ["account_id"], actor=None
    )
    Field.objects.filter(name="credit").update(searchable=True)
    root = administrator()
    one = {"where": f"{pair.mapping.left_id}:credit", "value": "120.50"}
    assert signed_in(root).post(reverse(LIVE), one).status_code == 404
    assert search(root, "120.50").context["hits"] == []

    own = person("own", "ledger.view_change", "sources.view_dataset", reaches_all=False)
    Grant.objects.create(person=own, kind="dataset", object_id=pair.mapping.left_id)
    mail = {"where": f"{pair.mapping.left_id}:mail", "value": "m.lopez2@example.com"}
    assert signed_in(own).post(reverse(LIVE), mail).status_code == 404


@pages
def test_a_rule_brings_what_its_records_had_and_no_look_into_its_sources(pair):
    one = person("one", "ledger.view_change", "rules.view_rule", reaches_all=False)
    Grant.objects.create(person=one, kind="rule", object_id=pair.rule.pk)
    assert [hit["key"] for hit in search(one, "Maria Lopez").context["hits"]] == [key(1)]
    assert search(one, "m.lopez2@example.com").context["hits"] == []
    event = AuditEvent.objects.filter(action=Act.RECORDS_SEARCHED).latest("id")
    assert "CRM: contacts: name" in event.details["fields"]  # what it had was searched
