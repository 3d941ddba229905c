"""The conflict inbox: what it shows, what is decided there, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from django.test import Client
from django.urls import reverse

from apps.ledger.models import Conflict
from apps.rules.models import RuleVersion
from apps.runs.models import Run
from apps.runs.services import work_until_finished
from tests.people import administrator, person, signed_in, viewer
from tests.two_way import TwoWay, account, key

pytestmark = pytest.mark.django_db(transaction=True)
INBOX = "admin:ledger_conflict_changelist"


@pytest.fixture
def pair(tmp_path: Path) -> TwoWay:
    return TwoWay(tmp_path)


def of_kind(kind: str) -> Conflict:
    return Conflict.objects.filter(kind=kind).first()


def decide(client: Client, conflict: Conflict, query: str = "", **data: str) -> Any:
    address = reverse("admin:ledger_conflict_decide", args=(conflict.pk,))
    return client.post(f"{address}{query}", {"seen": conflict.seen, **data})


def decision(conflict: Conflict) -> dict[str, Any]:
    conflict.refresh_from_db()
    assert conflict.state == Conflict.State.DECIDED
    return conflict.decision


def opened(client: Client, conflict: Conflict) -> Any:
    return client.get(reverse("admin:ledger_conflict_change", args=(conflict.pk,)))


def test_an_empty_inbox_says_when_the_last_conflict_was(pair):
    client = signed_in(administrator())
    assert "no conflict was ever met" in client.get(reverse(INBOX)).content.decode()
    pair.of_every_kind()
    Conflict.objects.update(state=Conflict.State.WITHDRAWN)
    assert "All clear, last conflict" in client.get(reverse(INBOX)).content.decode()


def test_the_newest_is_shown_three_way_with_what_differs_marked(pair):
    first = pair.of_every_kind()[0]
    page = opened(signed_in(administrator()), first)
    line = page.context["view"].open[0]
    assert line.name == "display_name"
    assert [base.text for base in line.bases] == ["Maria Lopez 1"]
    assert [part.text for part in line.left.segments if part.differs] == ["ó"]
    shown = page.content.decode()
    assert "Maria L<mark>ó</mark>pez 1" in shown
    assert "CRM" in shown
    assert "Billing" in shown


def test_a_new_record_whose_value_is_taken_tells_what_to_do_and_asks_nothing(pair):
    taken = {"kind": "unique", "left_key": key(80), "fields": ["phone"], "left": account(80)}
    (conflict,) = pair.meet({**taken, "candidates": [key(1)]})
    client = signed_in(administrator())
    shown = opened(client, conflict)
    assert "another one has its value of phone: 1" in " ".join(shown.content.decode().split())
    assert shown.context["choices"] == []
    assert not shown.context["may_decide"]
    answer = decide(client, conflict, side="left").content.decode()
    assert "Change the value in either record" in answer


def test_values_are_escaped(pair):
    evil = "<script>alert(1)</script>"
    pair.meet(pair.disagreement(1, {"phone": evil}, {"phone": f"{evil}2"}))
    shown = signed_in(administrator()).get(reverse(INBOX)).content.decode()
    assert "<script>alert" not in shown


def test_the_newest_is_looked_at_first(pair):
    pair.of_every_kind()
    page = signed_in(administrator()).get(reverse(INBOX))
    assert page.context["conflict"] == Conflict.objects.order_by("-pk").first()


def test_the_chips_count_and_filter(pair):
    pair.of_every_kind()
    client = signed_in(administrator())
    page = client.get(reverse(INBOX))
    rows = {row.label: [chip.label for chip in row.chips] for row in page.context["chip_rows"]}
    assert "Both sides changed the same fields 3" in rows["Kind"]
    assert {"email_address 2", "phone 1", "display_name 2"} <= set(rows["Field"])
    by_field = client.get(f"{reverse(INBOX)}?field=email_address")
    assert {c.kind for c in by_field.context["page"].shown} == {"fields", "unique"}
    by_kind = client.get(f"{reverse(INBOX)}?kind=match")
    assert [c.left_key for c in by_kind.context["page"].shown] == [key(70)]
    by_key = client.get(f"{reverse(INBOX)}?q=2")
    assert [c.left_key for c in by_key.context["page"].shown] == [key(2)]
    by_run = client.get(f"{reverse(INBOX)}?run={Conflict.objects.first().run_id}")
    assert by_run.context["page"].total == 9
    nothing = client.get(f"{reverse(INBOX)}?field=nothing&rule=x&run=x&kind=x")
    assert "matches this filter" in nothing.content.decode()


def test_each_field_is_decided_by_itself_and_the_next_one_opens(pair):
    first = pair.of_every_kind()[0]
    below = Conflict.objects.filter(pk__lt=first.pk).order_by("-pk").first()
    following = below or Conflict.objects.order_by("-pk").first()
    client = signed_in(administrator())
    answer = decide(client, first, **{"choice-0": "left", "choice-1": "right", "note": "checked"})
    expected = {"display_name": {"take": "left"}, "email_address": {"take": "right"}}
    assert decision(first)["fields"] == expected
    assert first.note == "checked"
    assert answer["Location"] == reverse("admin:ledger_conflict_change", args=(following.pk,))


def test_going_on_keeps_the_filter(pair):
    pair.of_every_kind()
    conflict = of_kind("match")
    answer = decide(signed_in(administrator()), conflict, "?kind=match", match="none")
    assert answer["Location"] == f"{reverse(INBOX)}?kind=match"


def test_a_whole_side_is_one_click(pair):
    first = pair.of_every_kind()[0]
    decide(signed_in(administrator()), first, side="right")
    assert decision(first)["record"] == "right"


def test_an_own_value_is_kept_in_the_form_of_its_type(pair):
    conflicts = pair.of_every_kind()
    credit = next(c for c in conflicts if c.field_names == ["credit"])
    phone = next(c for c in conflicts if c.field_names == ["phone"])
    client = signed_in(administrator())
    decide(client, credit, **{"choice-0": "own", "own-0": "125.00"})
    assert decision(credit)["fields"] == {"credit": {"take": "value", "value": "125"}}
    decide(client, phone, **{"choice-0": "own", "own-0": "", "null-0": "1"})
    assert decision(phone)["fields"] == {"phone": {"take": "value", "value": None}}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"choice-0": "own", "own-0": "a lot"}, "the field is decimal"),
        ({}, "Not decided yet"),
        ({"choice-0": "middle"}, "Not decided yet"),
    ],
)
def test_what_does_not_fit_is_shown_again_with_the_choice(pair, data, complaint):
    credit = next(c for c in pair.of_every_kind() if c.field_names == ["credit"])
    page = decide(signed_in(administrator()), credit, **data)
    assert page.status_code == 200
    assert complaint in page.content.decode()
    assert page.context["view"].open[0].chosen == data.get("choice-0", "")
    credit.refresh_from_db()
    assert credit.state == Conflict.State.OPEN


def test_a_value_that_moved_meanwhile_is_shown_and_the_choice_stays_a_proposal(pair):
    first = pair.of_every_kind()[0]
    fields = {"display_name": "Someone else", "email_address": "new@example.org"}
    pair.meet(
        pair.disagreement(1, {"display_name": "Maria López 1", "email_address": "x@x.org"}, fields)
    )
    page = decide(signed_in(administrator()), first, **{"choice-0": "left", "choice-1": "right"})
    assert page.status_code == 200
    shown = page.content.decode()
    assert "has changed since you looked" in shown
    lines = page.context["view"].open
    assert [line.right.text for line in lines] == list(fields.values())
    assert [line.chosen for line in lines] == ["left", "right"]
    first.refresh_from_db()
    assert first.state == Conflict.State.OPEN
    assert decide(signed_in(administrator("b")), first, side="left").status_code == 302


@pytest.mark.parametrize(
    ("kind", "keep", "remove"), [("edit_delete", "left", "right"), ("delete", "right", "left")]
)
def test_deletions_are_kept_or_followed(pair, kind, keep, remove):
    pair.of_every_kind()
    conflict = of_kind(kind)
    page = opened(signed_in(administrator()), conflict)
    labels = {choice.side: choice.label for choice in page.context["choices"]}
    assert labels[keep].startswith("Keep it")
    assert labels[remove].startswith("Delete it")


def test_a_match_is_chosen_from_its_candidates_or_is_new(pair):
    pair.of_every_kind()
    conflict = of_kind("match")
    client = signed_in(administrator())
    assert decide(client, conflict, match="7").status_code == 200
    decide(client, conflict, match="1")
    assert decision(conflict)["match"] == key(702)
    assert "It is the record 702" in opened(client, conflict).content.decode()
    decide(client, conflict, match="none")
    assert decision(conflict) == {"record": "insert"}


def test_every_kind_opens_and_offers_a_way_out(pair):
    client = signed_in(administrator())
    for conflict in pair.of_every_kind():
        page = opened(client, conflict)
        assert page.status_code == 200
        assert page.context["choices"] or page.context["candidates"], conflict.kind


def test_many_are_decided_after_a_look_at_their_number(pair):
    pair.of_every_kind()
    client = signed_in(administrator())
    address = f"{reverse('admin:ledger_conflict_bulk')}?choice=left&kind=fields"
    page = client.get(address)
    assert page.context["count"] == 3
    assert "Decide 3 conflicts" in page.content.decode()
    assert not Conflict.objects.filter(state=Conflict.State.DECIDED).exists()
    client.post(address, {"seen": page.context["seen"], "note": "the CRM is right"})
    decided = Conflict.objects.filter(state=Conflict.State.DECIDED)
    assert {c.kind for c in decided} == {"fields"}
    assert {c.decision["record"] for c in decided} == {"left"}
    assert {c.note for c in decided} == {"the CRM is right"}


def test_deciding_many_leaves_what_moved_and_what_is_of_another_kind(pair):
    first = pair.of_every_kind()[0]
    client = signed_in(administrator())
    address = f"{reverse('admin:ledger_conflict_bulk')}?choice=left&kind=fields"
    seen = orjson.loads(client.get(address).context["seen"])
    seen[str(first.pk)] = "something else"
    seen[str(of_kind("match").pk)] = of_kind("match").seen
    page = client.post(address, {"seen": orjson.dumps(seen).decode()}, follow=True)
    assert Conflict.objects.filter(state=Conflict.State.DECIDED).count() == 2
    assert "2 were left as they are" in page.content.decode()
    assert client.post(address, {"seen": "nonsense"}).status_code == 302


def test_deletions_in_bulk_mean_the_same_whichever_side_deleted(pair):
    pair.of_every_kind()
    client = signed_in(administrator())
    for choice, expected in (("keep", {"left", "right"}), ("delete", {"right", "left"})):
        Conflict.objects.update(state=Conflict.State.OPEN)
        address = f"{reverse('admin:ledger_conflict_bulk')}?choice={choice}"
        page = client.get(address)
        assert (page.context["count"], page.context["not_fitting"]) == (2, 7)
        client.post(address, {"seen": page.context["seen"]})
        decided = Conflict.objects.filter(state=Conflict.State.DECIDED)
        assert {c.decision["record"] for c in decided} == expected
        kept = "left" if choice == "keep" else "right"
        assert of_kind("edit_delete").decision["record"] == kept


def test_what_was_decided_can_be_written_at_once(pair):
    first = pair.of_every_kind()[0]
    client = signed_in(administrator())
    decide(client, first, side="left")
    assert "1 decision is not written yet" in client.get(reverse(INBOX)).content.decode()
    answer = client.post(reverse("admin:ledger_conflict_write"))
    run = Run.objects.get()
    assert answer["Location"] == reverse("admin:runs_run_change", args=(run.pk,))
    assert run.selection == [[key(1), key(1)]]
    assert run.trigger == Run.Trigger.DECISION
    assert (
        "goes on already"
        in client.post(reverse("admin:ledger_conflict_write"), follow=True).content.decode()
    )


def test_always_do_this_opens_the_rule_and_changes_nothing(pair):
    first = pair.of_every_kind()[0]
    client = signed_in(administrator())
    address = reverse("admin:rules_rule_change", args=(pair.rule.pk,))
    link = f"{address}?propose_field=display_name&amp;propose_policy=left"
    assert link in opened(client, first).content.decode()
    page = client.get(link.replace("&amp;", "&"))
    assert "Nothing changes before you save the rule" in page.content.decode()
    formset = page.context["inline_admin_formsets"][0].formset
    assert formset.forms[0].initial == {"field": "display_name", "policy": "left"}
    assert RuleVersion.objects.filter(rule=pair.rule).count() == 1
    strange = client.get(f"{address}?propose_field=nothing&propose_policy=left")
    assert "Nothing changes before" not in strange.content.decode()


def test_looking_needs_its_permission_and_deciding_its_own(pair):
    first = pair.of_every_kind()[0]
    stranger = signed_in(person("stranger", "runs.view_run"))
    assert stranger.get(reverse(INBOX)).status_code == 403
    assert opened(stranger, first).status_code in (403, 404)
    looker = signed_in(viewer())
    page = opened(looker, first)
    assert page.status_code == 200
    assert 'type="radio"' not in page.content.decode()
    bulk = f"{reverse('admin:ledger_conflict_bulk')}?choice=left"
    assert looker.get(bulk).status_code == 403
    assert looker.post(bulk).status_code == 403
    assert decide(looker, first, side="left").status_code == 403
    first.refresh_from_db()
    assert first.state == Conflict.State.OPEN
    decider = person("decider", "ledger.view_conflict", "ledger.decide_conflict")
    assert decide(signed_in(decider), first, side="left").status_code == 302
    assert signed_in(decider).post(reverse("admin:ledger_conflict_write")).status_code == 403
    assert not Run.objects.exists()


def test_a_get_decides_nothing(pair):
    first = pair.of_every_kind()[0]
    client = signed_in(administrator())
    for name, args in (("decide", (first.pk,)), ("write", ())):
        address = reverse(f"admin:ledger_conflict_{name}", args=args)
        assert client.get(address).status_code == 405


def test_the_inbox_asks_the_same_number_of_queries_for_many(pair, django_assert_max_num_queries):
    rows = [pair.disagreement(n, {"phone": f"{n}"}, {"phone": f"{n}0"}) for n in range(100, 140)]
    pair.meet(*rows, {"kind": "match", "left_key": key(70), "left": account(70)})
    client = signed_in(administrator())
    client.get(reverse(INBOX))
    with django_assert_max_num_queries(30):
        page = client.get(reverse(INBOX))
    assert (page.context["page"].total, len(page.context["page"].shown)) == (41, 25)


def test_a_conflict_far_down_is_shown_among_its_neighbours(pair):
    rows = [pair.disagreement(n, {"phone": f"{n}"}, {"phone": f"{n}0"}) for n in range(100, 180)]
    conflicts = sorted(pair.meet(*rows), key=lambda c: c.pk, reverse=True)
    page = opened(signed_in(administrator()), conflicts[60])
    shown = page.context["page"]
    assert conflicts[60] in shown.shown
    assert (shown.before, shown.after) == (conflicts[59], conflicts[61])


def test_a_real_conflict_is_decided_written_and_gone(tmp_path):
    pair = TwoWay(tmp_path, facts={"edit_delete": "ask"})
    pair.add_contacts(2)
    pair.run()
    pair.on_left("UPDATE contacts SET name = 'left', phone = '1' WHERE id = 1")
    pair.on_right("UPDATE accounts SET display_name = 'right', phone = '2' WHERE account_id = 1")
    pair.on_left("UPDATE contacts SET name = 'edited' WHERE id = 2")
    pair.on_right("DELETE FROM accounts WHERE account_id = 2")
    pair.run()
    client = signed_in(administrator())
    first, second = of_kind("fields"), of_kind("edit_delete")
    names = first.field_names
    takes = {"display_name": "left", "phone": "own"}
    data = {f"choice-{names.index(name)}": take for name, take in takes.items()}
    decide(client, first, **data, **{f"own-{names.index('phone')}": "3"})
    decide(client, second, side="left")
    client.post(reverse("admin:ledger_conflict_write"))
    run = work_until_finished(Run.objects.get(trigger="decision"))
    assert run.status == "succeeded", run.cause
    assert [(row[1], row[3]) for row in pair.contacts()] == [
        ("left", "3"),
        ("edited", "+34 911 555 002"),
    ]
    assert [row[1:4] for row in pair.accounts()] == [row[1:4] for row in pair.contacts()]
    assert set(Conflict.objects.values_list("state", flat=True)) == {"resolved"}
    assert "All clear" in client.get(reverse(INBOX)).content.decode()


def test_values_that_a_side_replaced_meanwhile_are_on_the_page(pair):
    left = account(1, display_name="first")
    pair.meet(pair.disagreement(1, left, account(1, display_name="right")))
    later = account(1, display_name="second")
    pair.meet(pair.disagreement(1, later, account(1, display_name="right")))
    page = opened(signed_in(administrator()), Conflict.objects.get())
    (moment,) = page.context["earlier"]
    assert [(line.name, line.left.text) for line in moment.lines] == [("display_name", "first")]
    assert "Earlier values" in page.content.decode()
