"""What a run that writes nothing would keep out is not kept out."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse

from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Rejection
from apps.ledger.services import dismiss_rejection
from apps.runs.models import Run
from tests.people import administrator, signed_in
from tests.platforms import Pair

pytestmark = pytest.mark.django_db(transaction=True)
State = Rejection.State


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Three customers, the third of whom a check keeps out."""
    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern="n[12].*")
    pair = Pair(tmp_path, checks=[check])
    pair.add_customers(3)
    return pair


def dry_run(pair: Pair) -> Run:
    return pair.run(mode=Run.Mode.DRY_RUN)


def test_what_a_dry_run_would_keep_out_is_not_open(pair):
    dry = dry_run(pair)
    assert dry.rejected == 1
    assert Rejection.objects.get().state == State.DRY_RUN
    client = signed_in(administrator())
    overview = client.get(reverse("admin:index"))
    assert "records kept out" not in overview.content.decode()
    shown = client.get(reverse("admin:runs_run_changes", args=(dry.pk,))).content.decode()
    assert "does not match" in shown
    page = reverse("admin:ledger_rejection_change", args=(Rejection.objects.get().pk,))
    assert "Found by a dry run" in client.get(page).content.decode()


def test_a_run_that_keeps_it_out_opens_it(pair):
    dry_run(pair)
    pair.run()
    assert [rejection.times for rejection in pair.open_rejections()] == [2]


def test_a_dry_run_leaves_what_is_open_or_dismissed_as_it_is(pair):
    pair.run()
    dry_run(pair)
    known = Rejection.objects.get()
    assert (known.state, known.times) == (State.OPEN, 1)
    dismiss_rejection(known, actor=None)
    dry_run(pair)
    assert Rejection.objects.get().state == State.DISMISSED


def test_a_run_that_lets_the_record_pass_closes_what_a_dry_run_found(pair):
    dry_run(pair)
    pair.on_left("UPDATE customers SET email = 'n22@example.org' WHERE id = 3")
    pair.run()
    assert Rejection.objects.get().state == State.RESOLVED
    pair.on_left("UPDATE customers SET email = 'x' WHERE id = 3")
    dry_run(pair)
    again = Rejection.objects.get()
    assert (again.state, again.resolved_at) == (State.DRY_RUN, None)
