"""Figures for Prometheus: right, read by its own parser, and no more than the account reaches."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from apps.accounts.models import Level
from apps.accounts.services import give_grant
from apps.alerts.services import watch
from apps.core.clock import now
from apps.core.services import set_platform_paused
from apps.insights.metrics import exposition
from apps.rules.models import Rule
from apps.runs.models import Partition, Run, RunStatus
from apps.runs.services.reviewing import begin_apply
from tests.alerts.conftest import Watched
from tests.people import administrator, person
from tests.platforms import PLAIN_FIELDS
from tests.programs import program

pytestmark = pytest.mark.django_db
DEPLOY = Path(settings.BASE_DIR) / "deploy"
OWN_NAME = re.compile(r"\blockstep_\w+")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path, fields=PLAIN_FIELDS)


def figures(text: str) -> dict[str, float]:
    """Values by name and labels, such as `lockstep_rule_failing pair`."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_they_say_what_is_there(watched):
    Rule.objects.update(enabled=True)
    watched.add_customers(3)
    done = watched.run()
    watched.ended(RunStatus.QUEUED)
    root = administrator()

    found = figures(exposition(root))

    assert found["lockstep_rule_last_success_timestamp_seconds pair"] == pytest.approx(
        done.finished_at.timestamp()
    )
    assert found["lockstep_rule_failing pair"] == 0
    assert found["lockstep_rule_enabled pair"] == 1
    assert found["lockstep_records_last_hour inserted"] == 3
    assert found["lockstep_runs_last_hour succeeded"] == 1
    assert found["lockstep_runs_active queued"] == 1
    assert found["lockstep_paused"] == 0

    watched.fails()
    watch()
    set_platform_paused(True, actor=None)
    found = figures(exposition(root))
    assert found["lockstep_rule_failing pair"] == 1
    assert found["lockstep_incidents critical open"] == 1
    assert found["lockstep_paused"] == 1


def test_a_program_reads_them_with_the_scope_and_its_parser(watched):
    reader = program(administrator(), ["metrics:read"])
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*"

    answer = reader.get("metrics", headers={"Accept": accept})

    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")
    assert "lockstep_rule_enabled pair" in figures(answer.content.decode())
    other = program(administrator("other"), ["rules:read"]).get("metrics")
    assert (other.status_code, other.json()["code"]) == (403, "api.insufficient_scope")


def test_rules_out_of_reach_are_in_none_of_them(watched, tmp_path):
    hidden = Watched(tmp_path, name="hidden", fields=watched.fields)
    for one in (watched, hidden):
        one.fails()
    watch()
    looks = ("rules.view_rule", "runs.view_run", "ledger.view_rejection", "alerts.view_incident")
    somebody = person("somebody", *looks, reaches_all=False)
    give_grant(somebody, watched.rule, Level.SEE, actor=None)

    text = exposition(somebody)

    assert "hidden" not in text
    assert figures(text)["lockstep_rule_failing pair"] == 1
    assert figures(text)["lockstep_incidents critical open"] == 1
    assert "lockstep_conflicts_open" not in text


def test_more_rules_cost_no_more_questions(watched, tmp_path):
    root = administrator()

    def asked() -> int:
        with CaptureQueriesContext(connection) as captured:
            exposition(root)
        return len(captured)

    watched.fails()
    asked()  # who may what is remembered
    alone = asked()
    for name in ("b", "c"):
        Watched(tmp_path, name=name, fields=watched.fields).fails()

    assert asked() == alone


def test_alert_rules_and_the_dashboard_name_figures_that_are_there(watched):
    watched.succeeds()
    text = exposition(administrator())
    rules = yaml.safe_load((DEPLOY / "prometheus" / "lockstep.rules.yml").read_text())
    board = json.loads((DEPLOY / "grafana" / "lockstep.json").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    asked = [alert["expr"] for alert in alerts]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]

    for alert in alerts:
        assert {"alert", "expr", "labels", "annotations"} <= alert.keys()
        assert alert["annotations"].keys() == {"summary", "description"}
    names = {name for expression in asked for name in OWN_NAME.findall(expression)}
    assert {name for name in names if f"# TYPE {name} " not in text} == set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_work_waits_for_a_worker_only_while_it_is_due_and_nothing_else_holds_it_back(watched):
    run = watched.ended(RunStatus.APPLYING)
    Run.objects.update(finished_at=None)
    moment = now()
    early, late = moment - timedelta(hours=2), moment + timedelta(minutes=5)
    part = Partition.objects.create(run=run, number=0, kind="records", state="to_apply")
    root = administrator()

    def waiting(**facts) -> tuple[float, float]:
        nothing = {"lease_until": None, "not_before": None, "place_wanted_at": None}
        Partition.objects.filter(pk=part.pk).update(**{**nothing, "updated_at": early, **facts})
        found = figures(exposition(root))
        minutes = round(found["lockstep_partitions_oldest_seconds"] / 60)
        return found["lockstep_partitions_waiting"], minutes

    assert waiting() == (1, 120)
    assert waiting(lease_until=late) == (0, 0)
    assert waiting(not_before=late) == (0, 0)
    assert waiting(place_wanted_at=early) == (0, 0)
    assert waiting(not_before=moment - timedelta(minutes=3)) == (1, 3)
    assert waiting(lease_until=moment - timedelta(minutes=3)) == (1, 3)  # its worker is gone
    Run.objects.update(cancel_requested_at=moment)
    assert waiting() == (0, 0)


def test_what_was_approved_waits_since_its_approval(watched):
    run = watched.ended(RunStatus.WAITING)
    Run.objects.update(finished_at=None)
    Partition.objects.create(run=run, number=0, kind="records", state="planned")
    Partition.objects.update(updated_at=now() - timedelta(days=2))
    root = administrator()
    assert figures(exposition(root))["lockstep_partitions_waiting"] == 0
    begin_apply(run)
    found = figures(exposition(root))
    assert found["lockstep_partitions_waiting"] == 1
    assert found["lockstep_partitions_oldest_seconds"] < 3600


def test_a_run_that_took_hours_counts_when_it_ends(watched):
    run = watched.succeeds()
    Run.objects.filter(pk=run.pk).update(created_at=now() - timedelta(hours=3), inserted=7)
    found = figures(exposition(administrator()))
    assert found["lockstep_runs_last_hour succeeded"] == 1
    assert found["lockstep_records_last_hour inserted"] == 7
