"""Run pages: live part, changes by page, cancel."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.urls import reverse

from apps.core.clock import now
from apps.engine.spec import CheckKind, CheckSpec
from apps.runs.admin import changes
from apps.runs.models import Partition, Run, RunStatus
from apps.runs.selectors import run_progress
from apps.runs.services import request_run, work_until_finished
from tests.people import administrator, person, signed_in, viewer
from tests.platforms import Pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern="n[1-8]@.*")
    pair = Pair(tmp_path, checks=[check])
    pair.add_customers(9)
    return pair


def url(name: str, run: Run) -> str:
    return reverse(f"admin:runs_run_{name}", args=(run.pk,))


def test_a_dry_run_says_that_nothing_was_written(pair):
    run = pair.run(mode=Run.Mode.DRY_RUN)
    page = signed_in(administrator()).get(url("changes", run)).content.decode()
    assert "Nothing was written." in page
    assert "n1@example.org" in page
    assert "Kept out, by cause" in page
    assert pair.clients() == []


def test_changes_come_in_pages(pair, monkeypatch):
    monkeypatch.setattr(changes, "PAGE", 3)
    run = pair.run()
    client = signed_in(administrator())
    seen: list[str] = []
    address = url("changes", run)
    for _ in range(5):
        page = client.get(address)
        seen += [change.right_key for change, _ in page.context["changes"]]
        if page.context["next_after"] is None:
            break
        address = f"{url('changes', run)}?after={page.context['next_after']}"
    assert len(seen) == len(set(seen)) == 8


def test_changes_are_filtered_by_operation_and_found_by_key(pair):
    pair.run()
    pair.on_left("UPDATE customers SET name = 'Zoe' WHERE id = 1")
    pair.on_left("DELETE FROM customers WHERE id = 2")
    run = pair.run()
    client = signed_in(administrator())
    page = client.get(url("changes", run) + "?operation=update")
    assert [change.right_key for change, _ in page.context["changes"]] == ['["1"]']
    page = client.get(url("changes", run) + "?key=2")
    assert [change.operation for change, _ in page.context["changes"]] == ["delete"]


def test_values_are_escaped(pair):
    pair.on_left("UPDATE customers SET name = '<script>alert(1)</script>' WHERE id = 1")
    run = pair.run()
    page = signed_in(administrator()).get(url("changes", run)).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_live_part_goes_on_until_the_run_ends(pair):
    client = signed_in(administrator())
    run = request_run(pair.rule, actor=None)
    assert "data-ls-poll" in client.get(url("change", run)).content.decode()
    assert client.get(url("live", run)).status_code == 200
    work_until_finished(run)
    assert client.get(url("live", run)).status_code == 286
    assert "data-ls-poll" not in client.get(url("change", run)).content.decode()


def test_the_live_part_renews_all_that_a_run_changes(pair):
    client = signed_in(administrator())
    run = request_run(pair.rule, actor=None)
    Run.objects.filter(pk=run.pk).update(status=RunStatus.APPLYING, lane=Run.Lane.RECONCILE)
    page = client.get(url("live", run)).content.decode()
    renewed = re.findall(r'id="(ls-run-\w+)" hx-swap-oob="true"', page)
    assert renewed == ["ls-run-status", "ls-run-facts", "ls-run-partitions"]
    status, _, rest = page.partition('id="ls-run-facts"')
    assert "Applying" in status.rpartition('id="ls-run-status"')[2]
    assert "Reconcile" in rest


def test_nothing_is_estimated_once_all_is_read(pair):
    run = request_run(pair.rule, actor=None)
    moment = now()
    run.status, run.started_at, run.read_estimate = "planning", moment - timedelta(seconds=9), 10
    Partition.objects.create(run=run, number=7, kind="records", read=5)
    assert run_progress(run).eta_seconds is not None
    run.partitions.update(read=10)
    assert run_progress(run).eta_seconds is None


def test_the_live_part_sends_only_new_lines(pair):
    run = pair.run()
    client = signed_in(administrator())
    last = run.log.latest("id")
    page = client.get(f"{url('live', run)}?after={last.pk - 1}").content.decode()
    assert page.count("<time datetime") >= 1
    assert page.count('class="ls-log-') == 1


def test_cancel_needs_its_permission(pair):
    run = request_run(pair.rule, actor=None)
    address = reverse("admin:runs_run_do", args=(run.pk, "cancel"))
    assert signed_in(viewer()).post(address).status_code == 403
    stopper = person("stopper", "runs.view_run", "runs.cancel_run")
    assert signed_in(stopper).post(address).status_code == 302
    run.refresh_from_db()
    assert run.cancel_requested_at is not None


def test_the_chips_filter_the_list(pair):
    dry, real = pair.run(mode=Run.Mode.DRY_RUN), pair.run()
    client = signed_in(administrator())
    page = client.get(reverse("admin:runs_run_changelist"))
    queries = {chip.label: chip.query for chip in page.context["chips"]}
    listing = reverse("admin:runs_run_changelist")
    dry_runs = client.get(f"{listing}?{queries['Dry runs']}").context["cl"].result_list
    assert [run.pk for run in dry_runs] == [dry.pk]
    attention = client.get(f"{listing}?{queries['Needs attention']}").context["cl"].result_list
    assert [run.pk for run in attention] == [real.pk]
    running = client.get(f"{listing}?{queries['Running']}").context["cl"].result_list
    assert list(running) == []


def test_a_waiting_plan_is_applied_from_its_page_exactly_or_in_part(pair):
    pair.rule.approval = "always"
    pair.rule.save()
    run = pair.run()
    client = signed_in(administrator())
    page = client.get(url("change", run))
    assert page.context["plan"].question_all == "Write 8 changes to pair right?"
    assert "data-ls-poll" not in page.content.decode()
    looker = signed_in(viewer())
    assert looker.post(url("decide", run), {"what": "all"}).status_code == 403
    chosen = [change.pk for change in pair.changes(run)[:3]]
    client.post(url("decide", run), {"what": "chosen", "change": chosen, "note": "three"})
    work_until_finished(run)
    assert len(pair.clients()) == 3
    again = pair.run()
    client.post(url("decide", again), {"what": "reject", "note": "no more"})
    again.refresh_from_db()
    assert (again.status, len(pair.clients())) == ("rejected", 3)
