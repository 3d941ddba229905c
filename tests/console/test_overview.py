"""The overview answers what is wrong and what to do, for each person."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.urls import reverse

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.services import set_platform_paused
from apps.rules.models import Rule
from apps.rules.services import set_enabled
from apps.runs.models import Run, RunStatus
from apps.runs.services import start_due_runs
from apps.sources.models import Source
from apps.sources.services import discover
from tests.people import administrator, person, signed_in, viewer
from tests.platforms import Pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.add_customers(3)
    return pair


def overview(user):
    return signed_in(user).get(reverse("admin:index"))


def test_the_checklist_names_the_next_step_until_the_first_real_run(pair):
    user = administrator()
    steps = overview(user).context["checklist"]
    assert [step["done"] for step in steps] == [True, True, False, False]
    assert steps[2]["current"]
    pair.run(mode=Run.Mode.DRY_RUN)
    assert [step["done"] for step in overview(user).context["checklist"]] == [True] * 3 + [False]
    pair.run()
    assert overview(user).context["checklist"] is None


def test_demo_data_does_not_count_as_ones_own(pair):
    pair.run()
    Rule.objects.update(is_demo=True)
    Source.objects.update(is_demo=True)
    page = overview(administrator())
    assert not any(step["done"] for step in page.context["checklist"])
    assert "Remove the demo" in page.content.decode()


def test_a_rule_that_could_not_start_when_it_was_due_needs_attention(pair):
    Rule.objects.update(schedule_kind="every", every_minutes=5)
    pair.rule.refresh_from_db()
    set_enabled(pair.rule, True, actor=None)
    pair.mapping.right.fields.filter(name="full_name").delete()  # gone since the last discovery
    assert start_due_runs(now() + timedelta(minutes=6)) == []
    (line,) = overview(administrator()).context["attention"]
    assert "Did not start when it was due: 'clients' has no field 'full_name'" in line.text
    discover(pair.mapping.right.source, actor=None)
    assert len(start_due_runs(now() + timedelta(minutes=12))) == 1
    assert overview(administrator("other")).context["attention"] == []


def test_removing_the_demo_names_the_rules_of_ones_own_that_go_with_it(pair):
    Source.objects.filter(pk=pair.mapping.left.source_id).update(is_demo=True)
    question = "so do rules that were built on its sources: "
    assert f"{question}{pair.rule.name}." in overview(administrator()).content.decode()
    Rule.objects.update(is_demo=True)
    assert question not in overview(administrator("other")).content.decode()


def test_a_failed_rule_needs_attention_first(pair):
    pair.run()
    pair.on_right("DROP TABLE clients")
    run = pair.run()
    assert run.status == "failed"
    line = overview(administrator()).context["attention"][0]
    assert (line.title, line.bad) == (pair.rule.name, True)
    assert line.url == reverse("admin:runs_run_change", args=(run.pk,))


def test_the_numbers_link_to_what_they_count(pair):
    pair.run()
    client = signed_in(administrator())
    for kpi in client.get(reverse("admin:index")).context["kpis"]:
        assert client.get(kpi.url).status_code == 200, kpi.url
    written = client.get(reverse("admin:index")).context["kpis"][4]
    assert written.value == "3"


def test_a_pause_of_everything_is_said_and_undone(pair):
    user = administrator()
    set_platform_paused(True, actor=user, reason="maintenance")
    page = overview(user).content.decode()
    assert "Everything is paused" in page
    assert "maintenance" in page
    signed_in(user).post(reverse("admin:resume_everything"))
    assert "Everything is paused" not in overview(user).content.decode()


def test_who_may_see_nothing_sees_nothing(pair):
    pair.run()
    context = overview(person("newcomer")).context
    assert context["tick_rows"] == []
    assert context["attention"] == []
    assert context["kpis"] == []
    page = overview(User.objects.get(username="newcomer")).content.decode()
    assert "An administrator gives you a role" in page
    assert "All clear" not in page
    assert reverse("admin:runs_run_changelist") not in page


def test_who_sees_a_part_is_not_told_that_all_is_clear(pair):
    pair.run()
    page = overview(person("auditor", "sources.view_source")).content.decode()
    assert "All clear" not in page
    assert "No rules yet" not in page
    assert "All clear" in overview(viewer()).content.decode()


def test_every_link_leads_where_this_person_may_go(pair):
    """The overview and the pages of objects, for people who may see one kind of thing."""
    run = pair.run()
    places = {
        "sources.view_source": ("sources_source", pair.mapping.left.source_id),
        "runs.view_run": ("runs_run", run.pk),
        "mappings.view_mapping": ("mappings_mapping", pair.mapping.pk),
        "ledger.view_change": ("ledger_change", pair.changes(run)[0].pk),
    }
    for number, (permission, (name, pk)) in enumerate(places.items()):
        client = signed_in(person(f"person {number}", permission))
        for address in (
            reverse("admin:index"),
            reverse(f"admin:{name}_changelist"),
            reverse(f"admin:{name}_change", args=(pk,)),
        ):
            links = set(re.findall(r'href="(/admin/[^"?]+)', client.get(address).content.decode()))
            for link in links - {reverse("admin:logout")}:
                assert client.get(link).status_code == 200, f"{permission}: {address} → {link}"


def test_its_queries_do_not_grow_with_the_runs(pair, django_assert_max_num_queries):
    for _ in range(4):
        pair.run()
    client = signed_in(viewer())
    with django_assert_max_num_queries(35):
        client.get(reverse("admin:index"))


def test_the_sidebar_has_a_badge_where_something_waits_and_nowhere_else(pair):
    user = administrator()

    def badges():
        groups = overview(user).context["sidebar_navigation"]
        return [item["title"] for group in groups for item in group["items"] if "badge" in item]

    assert badges() == []
    Run.objects.create(rule=pair.rule, version=pair.rule.versions.first(), status=RunStatus.WAITING)
    assert badges() == ["Runs"]
