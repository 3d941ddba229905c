"""Personal values are masked on every page, and shown once to whoever may and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from apps.accounts.models import User
from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Change, Conflict, Rejection
from apps.ledger.selectors import masked, rule_masks
from apps.ledger.selectors.record_family import Address
from apps.mappings.masking import MASKED, Mask
from apps.mappings.selectors import mapping_spec
from apps.mappings.services import save_mapping
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import explain_record, record_now
from apps.sources.models import Dataset, Field
from tests.people import administrator, person, signed_in
from tests.platforms import Pair
from tests.two_way import TwoWay

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "n7@example.org"
LOOK = (
    "ledger.view_change",
    "ledger.view_rejection",
    "ledger.view_conflict",
    "ledger.replay_rejection",
    "rules.view_rule",
    "runs.view_run",
    "sources.view_dataset",
)


def mark(dataset: Dataset, *names: str) -> None:
    Field.objects.filter(dataset=dataset, name__in=names).update(personal_data="contact")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Nine records, one of which a check keeps out; mail is personal on the left only."""
    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern="n[0-6].*")
    pair = Pair(tmp_path, checks=[check])
    mark(pair.mapping.left, "email")
    pair.add_customers(7)
    pair.run(mode=Run.Mode.DRY_RUN)
    pair.run()
    return pair


def looker(*more: str) -> User:
    return person("looker", *LOOK, *more)


def test_a_field_that_a_personal_one_flows_into_is_personal(pair):
    assert rule_masks([pair.rule.pk]) == {
        pair.rule.pk: Mask(frozenset({"email"}), frozenset({"mail"}))
    }


def test_and_one_that_flows_into_a_personal_one(pair):
    Field.objects.update(personal_data="")
    mark(pair.mapping.right, "full_name")

    assert rule_masks([pair.rule.pk])[pair.rule.pk].left == {"name"}


def test_what_once_flowed_into_a_field_keeps_it_masked(pair):
    """Otherwise a line taken out of the mapping would unmask what was kept before."""
    others = [spec for spec in mapping_spec(pair.mapping).fields if spec.right != "mail"]
    save_rule(pair.rule, (), actor=None)
    save_mapping(pair.mapping, others, ["client_id"], actor=None)

    assert "mail" in rule_masks([pair.rule.pk])[pair.rule.pk].right


def test_null_stays_null_and_others_stay(pair):
    mask = Mask(right=frozenset({"mail"}))
    image = {"client_id": "1", "mail": None, "note": "x"}
    assert mask.image(image, "right") == image
    assert mask.image({"mail": "a@b"}, "right") == {"mail": MASKED}
    assert mask.image({"mail": "a@b"}, "left") == {"mail": "a@b"}


@pytest.mark.parametrize(
    ("text", "field", "shown"),
    [
        ("'n7@example.org' does not match", "mail", f"{MASKED} does not match"),
        ("Key (mail)=(n7@example.org) exists", "", f"Key {MASKED}{MASKED} exists"),
        ("N7@Example.org is taken", "full_name", f"{MASKED} is taken"),
        ("the name 'x' is short", "full_name", "the name 'x' is short"),
        ("phone 0301234567 is wrong", "", f"phone {MASKED} is wrong"),
    ],
)
def test_a_message_quotes_no_personal_value(text, field, shown):
    mask = Mask(frozenset({"email"}), frozenset({"mail"}))
    assert mask.text(text, field, ({"email": "N7@Example.org"}, "left")) == shown


def pages(pair: Pair) -> list[tuple[str, str]]:
    """Each page that shows values, and where its values are asked for."""
    change = Change.objects.filter(rule_id=pair.rule.pk, right_key='["3"]').last()
    rejection = Rejection.objects.get()
    run = pair.rule.runs.first()
    digest = Address(pair.mapping.right_id, '["3"]').digest
    place = (pair.mapping.right_id, digest)
    return [
        (
            reverse("admin:ledger_change_change", args=(change.pk,)),
            reverse("admin:ledger_change_reveal", args=(change.pk,)),
        ),
        (
            reverse("admin:ledger_rejection_change", args=(rejection.pk,)),
            reverse("admin:ledger_rejection_reveal", args=(rejection.pk,)),
        ),
        (
            reverse("admin:runs_run_changes", args=(run.pk,)),
            reverse("admin:runs_run_reveal", args=(run.pk,)),
        ),
        (
            reverse("admin:ledger_change_record", args=place) + f"?now={pair.rule.pk}",
            reverse("admin:ledger_change_reveal_record", args=place) + f"?now={pair.rule.pk}",
        ),
    ]


def test_pages_mask_and_reveal_once_for_a_reason(pair):
    client = signed_in(looker("sources.reveal_field"))
    for page, reveal in pages(pair):
        before = AuditEvent.objects.filter(action=Act.VALUES_REVEALED).count()
        masks = client.get(page).content.decode()
        assert MASKED in masks, page
        assert "example.org" not in masks.lower(), page
        assert reveal in masks, page

        without = client.post(reveal, {"reason": " "}).content.decode()
        assert "example.org" not in without.lower(), page
        assert AuditEvent.objects.filter(action=Act.VALUES_REVEALED).count() == before

        answer = client.post(reveal, {"reason": "ticket 5"})
        assert "example.org" in answer.content.decode().lower(), page
        assert "no-store" in answer["Cache-Control"]
        told = AuditEvent.objects.filter(action=Act.VALUES_REVEALED).latest("id")
        assert told.reason == "ticket 5"
        assert told.actor_label == "looker"
        assert told.details["fields"] == ["email", "mail"]
        assert "example.org" not in str(told.details).lower()
        assert "example.org" not in client.get(page).content.decode().lower(), page


def test_who_may_not_reveal_is_refused_and_offered_nothing(pair):
    client = signed_in(looker())
    for page, reveal in pages(pair):
        assert reveal not in client.get(page).content.decode(), page
        assert client.post(reveal, {"reason": "curious"}).status_code == 403, page
    assert not AuditEvent.objects.filter(action=Act.VALUES_REVEALED).exists()


def test_administrators_see_masks_too(pair):
    client = signed_in(administrator())
    for page, _ in pages(pair):
        assert "example.org" not in client.get(page).content.decode().lower(), page


def test_lists_and_answers_of_services_are_masked(pair):
    client = signed_in(looker())
    listing = client.get(reverse("admin:ledger_rejection_changelist")).content.decode()
    assert "example.org" not in listing.lower()
    assert MASKED in listing

    found = record_now(pair.rule, "3", actor=None)
    assert (found.left or {})["email"] == MASKED
    assert (found.right or {})["mail"] == MASKED
    assert found.is_equal
    words = " ".join(f.sentence for f in explain_record(pair.rule, "7", actor=None))
    assert "rejected" in words
    assert SECRET not in words.lower()


def test_what_is_masked_is_left_as_it_is_when_a_correction_is_saved(pair):
    client = signed_in(looker())
    rejection = Rejection.objects.get()
    names = list(rejection.record() or {})
    typed = {f"value-{n}": str(value or "") for n, value in enumerate(masked_record(rejection))}
    typed[f"value-{names.index('name')}"] = "Corrected"

    address = reverse("admin:ledger_rejection_decide", args=(rejection.pk,))
    client.post(address, {**typed, "save": ""})

    edit = Rejection.objects.get().edit() or {}
    assert edit["name"] == "Corrected"
    assert edit["email"] == "N7@Example.org"


def masked_record(rejection: Rejection) -> list[Any]:
    shown = masked([Rejection.objects.get(pk=rejection.pk)])[0]
    return list((shown.record() or {}).values())


def test_conflicts_are_masked_and_can_be_revealed(tmp_path):
    world = TwoWay(tmp_path)
    world.of_every_kind()
    mark(world.mapping.right, "email_address", "phone")
    client = signed_in(looker("sources.reveal_field", "ledger.decide_conflict"))
    shown = 0
    for conflict in Conflict.objects.filter(state="open"):
        values = {
            image[name]
            for image in (conflict.left, conflict.right, *(conflict.base or ()))
            if image
            for name in ("email_address", "phone")
            if image.get(name)
        }
        page = client.get(reverse("admin:ledger_conflict_change", args=(conflict.pk,)))
        assert not [v for v in values if v in page.content.decode()], conflict
        reveal = reverse("admin:ledger_conflict_reveal", args=(conflict.pk,))
        assert (reveal in page.content.decode()) is bool(values)
        text = client.post(reveal, {"reason": "ticket 6"}).content.decode()
        shown += any(value in text for value in values)
    assert shown
    for choice in ("left", "keep"):
        bulk = client.get(reverse("admin:ledger_conflict_bulk"), {"choice": choice})
        assert bulk.status_code == 200
        assert "@example.com" not in bulk.content.decode()
