"""The command line: what each verb says, in words and in JSON, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management.base import CommandParser
from django.db import DatabaseError, transaction
from django.db.migrations.executor import MigrationExecutor

from apps.audit.models import AuditEvent
from apps.console.command_line import Output, execute, following
from apps.console.command_line.parser import add_verbs
from apps.core.models import PlatformState
from apps.rules.models import Rule
from apps.sources.models import Source
from tests.audit.streams import checkpoints_in, sql, write_events
from tests.platforms import Pair

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)


class Answer:
    """What a verb wrote, and its exit code."""

    def __init__(self, *words: str) -> None:
        parser = CommandParser(prog="lockstep", called_from_command_line=True)
        add_verbs(parser)
        arguments = parser.parse_args(words)
        out, err = io.StringIO(), io.StringIO()
        self.code = execute(arguments, Output(out, err, as_json=arguments.as_json))
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.add_customers(3)
    return pair


def test_run_waits_and_says_what_was_done(pair: Pair) -> None:
    answer = Answer("run", "pair", "--wait")

    assert answer.code == 0
    assert (
        "pair: succeeded: 3 inserted, 0 updated, 0 deleted, 0 unchanged, 0 rejected" in answer.out
    )
    assert "pair: queued" in answer.out
    assert len(pair.clients()) == 3


def test_a_rule_that_is_refused_keeps_no_other_from_being_queued(
    pair: Pair, tmp_path: Path
) -> None:
    other = Pair(tmp_path, name="a paused pair")
    Rule.objects.filter(pk=other.rule.pk).update(paused=True)
    answer = Answer("run", "*pair", "--json")

    assert answer.code == 1
    runs = {run["rule"]: run["status"] for run in answer.json["runs"]}
    assert runs == {"a paused pair": "refused", "pair": "queued"}


@pytest.mark.parametrize("words", [["frob"], ["apply"], ["plan", "x", "--limit=-1"], ["demo"]])
def test_wrong_usage_is_json_for_who_asked_for_json(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", "lockstep", *words, "--json"])

    with pytest.raises(SystemExit) as end:
        Answer(*words, "--json")

    assert end.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "command.usage"


def test_run_without_wait_only_queues(pair: Pair) -> None:
    answer = Answer("run", "pair", "--json")

    assert answer.code == 0
    assert [run["status"] for run in answer.json["runs"]] == ["queued"]
    assert pair.clients() == []


def test_rejections_have_an_exit_code_of_their_own(pair: Pair) -> None:
    pair.on_left("INSERT INTO customers VALUES (9, ?, 'x@example.org', 1, NULL)", "n" * 50)

    answer = Answer("run", "--all", "--wait", "--json")

    assert answer.code == 3
    assert answer.json["runs"][0]["status"] == "partial"
    assert answer.json["runs"][0]["counters"]["rejected"] == 1


def test_a_failed_run_leaves_out_what_depends_on_it(pair: Pair, tmp_path: Path) -> None:
    other = Pair(tmp_path, name="second")
    other.rule.depends_on.add(pair.rule)
    pair.left_path.unlink()
    Rule.objects.filter(name="pair").update(paused=True)

    answer = Answer("run", "second", "pair", "--wait", "--json")

    assert answer.code == 1
    statuses = [(run["rule"], run["status"]) for run in answer.json["runs"]]
    assert statuses == [("pair", "refused"), ("second", "skipped")]


def test_patterns_name_many_rules(pair: Pair, tmp_path: Path) -> None:
    Pair(tmp_path, name="path")

    assert len(Answer("run", "pa*", "--json").json["runs"]) == 2


def test_plan_shows_the_first_changes_and_writes_nothing(pair: Pair) -> None:
    answer = Answer("plan", "pair", "--wait", "--limit", "2")

    assert answer.code == 0
    assert "3 inserts, 0 updates, 0 deletes planned" in answer.out
    assert "+ 1\n    client_id: 1\n    full_name: Name 1\n" in answer.out
    assert "… and 1 more" in answer.out
    assert pair.clients() == []


def test_plan_as_json_has_before_and_after(pair: Pair) -> None:
    pair.run()
    pair.on_left("UPDATE customers SET name = 'New' WHERE id = 2")

    changes = Answer("plan", "pair", "--wait", "--json").json["changes"]

    assert changes == [
        {
            "operation": "update",
            "cause": "changed",
            "key": ["2"],
            "before": {"full_name": "Name 2"},
            "after": {"full_name": "New"},
        }
    ]


def test_status_tells_of_every_rule(pair: Pair) -> None:
    assert "pair  manual    never run" in Answer("status").out
    pair.run()

    assert "pair  manual    succeeded" in Answer("status").out
    facts = Answer("status", "pair", "--json").json
    assert facts["state"] == "manual"
    assert [run["status"] for run in facts["runs"]] == ["succeeded"]


def test_pausing_a_rule_a_source_and_everything(pair: Pair) -> None:
    assert Answer("pause", "pair").out == "rule pair: paused\n"
    assert Answer("pause", "pair left").out == "source pair left: paused\n"
    assert Answer("pause", "--all").out == "everything: paused\n"
    assert Rule.objects.get().paused
    assert Source.objects.get(name="pair left").paused
    assert PlatformState.objects.get().paused

    for words in (["pair"], ["pair left"], ["--all"]):
        assert Answer("resume", *words).code == 0
    assert Answer("run", "pair", "--wait").code == 0


def test_a_paused_rule_refuses_with_one_clear_line(pair: Pair) -> None:
    Answer("pause", "pair")

    answer = Answer("run", "pair")

    assert answer.code == 1
    assert answer.err == "lockstep: rule 'pair' is paused. Resume the rule.\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "par"], "there is no rule 'par'. Did you mean 'pair'?"),
        (["run"], "say which rules to run. Name rules, or write --all."),
        (["run", "pair", "--all"], "say which rules to run."),
        (["check", "pair lift"], "there is no source 'pair lift'. Did you mean 'pair left'?"),
        (["pause"], "say what is meant."),
        (["status", "zzz"], "there is no rule 'zzz'. There is: pair."),
    ],
)
def test_wrong_words_are_answered_with_what_was_meant(
    pair: Pair, words: list[str], text: str
) -> None:
    answer = Answer(*words)

    assert answer.code == 2
    assert text in answer.err
    assert answer.err.count("\n") == 1


def test_errors_are_json_with_their_code(pair: Pair) -> None:
    answer = Answer("run", "par", "--json")

    assert answer.json["error"]["code"] == "command.unknown_name"
    assert answer.err == ""


def test_check_shows_each_step(pair: Pair) -> None:
    assert "ok       read" in Answer("check", "pair left").out
    pair.left_path.unlink()

    answer = Answer("check", "pair left", "--json")

    assert answer.code == 1
    failed = [step for step in answer.json["steps"] if step["status"] == "failed"]
    assert [bool(step["remedy"]) for step in failed] == [True]


def test_discover_lists_datasets_and_drift(pair: Pair) -> None:
    pair.on_left("ALTER TABLE customers ADD COLUMN shoe_size INTEGER")

    answer = Answer("discover", "pair left")

    assert "customers" in answer.out
    assert "3 rows" in answer.out
    assert "changed: Field added: customers.shoe_size" in answer.out
    assert Answer("discover", "pair left", "--json").json["datasets"][0]["key"] == ["id"]


def test_apply_and_export_round(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    Answer("export", "--output", str(path))
    assert Answer("apply", str(path)).out.endswith("0 created, 0 updated, 6 unchanged\n")
    path.write_text(path.read_text().replace("lower(email)", "upper(email)"))

    dry = Answer("apply", str(path), "--dry-run")
    assert "~ mapping pair\n    fields.mail.expression: lower(email) → upper(email)\n" in dry.out
    assert dry.out.endswith("(dry run: nothing was done)\n")
    assert Answer("apply", str(path), "--json").json["entries"][-2]["action"] == "updated"


def test_every_problem_of_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("sorces: {}\nrules:\n  a:\n    filtre: x\n")

    answer = Answer("apply", str(path))

    assert answer.code == 1
    assert answer.err.splitlines() == [
        "lockstep: bad.yaml, line 4, rules.a.filtre: unknown key 'filtre'. Write `filter`.",
        "lockstep: bad.yaml, line 1, sorces: unknown key 'sorces'. Write `sources`.",
    ]
    assert len(Answer("apply", str(path), "--json").json["error"]["problems"]) == 2


def test_a_verb_that_does_not_exist_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as caught:
        Answer("frobnicate")

    assert caught.value.code == 2


def manage(*words: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LOCKSTEP_DATA_DIR": str(folder), "LOCKSTEP_PROFILE": "embedded"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "manage.py", *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment, text=True, timeout=120, check=False, **options
    )


@pytest.mark.processes
def test_the_real_command_ends_with_the_codes_and_streams_it_promises(tmp_path: Path) -> None:
    manage("migrate", "-v0", folder=tmp_path, capture_output=True)

    done = manage("lockstep", "status", folder=tmp_path, capture_output=True)
    refused = manage("lockstep", "run", "nothing", folder=tmp_path, capture_output=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "There are no rules yet.\n", "")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "lockstep: there is no rule 'nothing'. There is no rule yet.\n"


def read_all(descriptor: int, into: list[bytes]) -> None:
    """Everything until the other side of a terminal is closed."""
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 4096):
            into.append(data)


@pytest.mark.processes
def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    manage("migrate", "-v0", folder=tmp_path, capture_output=True)
    manage("lockstep", "demo", "load", folder=tmp_path, capture_output=True)
    leader, follower = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(leader, shown))
    reader.start()
    manage("lockstep", "run", "Demo products", "--wait", folder=tmp_path, stdout=follower)
    os.close(follower)
    reader.join(timeout=10)
    os.close(leader)
    text = b"".join(shown).decode()

    assert "━" in text
    assert "Demo products: done with rejections: 50 inserted, 8 updated" in text


def test_a_database_of_another_version_is_named(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_: [("a migration", False)])
    monkeypatch.setattr(Rule._meta, "db_table", "not_there_yet")
    answer = Answer("status")
    assert answer.code == 1
    assert "of another version" in answer.err
    assert "migrate" in answer.err
    assert Answer("status", "--json").json["error"]["code"] == "configuration.invalid"


def test_a_mistake_of_ours_in_a_query_is_not_explained_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rule._meta, "db_table", "not_there_yet")
    with pytest.raises(DatabaseError), transaction.atomic():
        Answer("status")


def test_the_audit_log_is_verified_in_words_and_in_json(tmp_path: Path):
    with checkpoints_in(tmp_path) as file:
        events = write_events(5)
        assert Answer("audit", "seal").out == "5 events were sealed.\n"
        sound = Answer("audit", "verify")
        assert (sound.code, "as it was written" in sound.out) == (0, True)
        sql("UPDATE audit_auditevent SET reason = 'x' WHERE id = %s", events[2].id)

        words, facts = Answer("audit", "verify"), Answer("audit", "verify", "--json")

        assert words.code == facts.code == 1
        assert str(events[2].id) in words.out
        assert facts.json["first"]["kind"] == "changed"
        assert facts.json["first"]["event"] == str(events[2].id)
        assert facts.json["counts"] == {"changed": 1}
        missing = Answer("audit", "verify", "--checkpoints", f"{file}.gone", "--json")
        assert missing.code == 1
        assert missing.json["error"]["code"] == "audit.checkpoints_unreadable"
        assert AuditEvent.objects.order_by("-id")[0].actor_label.startswith("command line (")


def test_a_rest_source_is_proposed_from_an_openapi_document(tmp_path: Path) -> None:
    document = Path(__file__).parents[1] / "connectors" / "rest" / "shop.openapi.yaml"

    answer = Answer("source", "propose-rest", str(document))
    assert answer.code == 0
    assert answer.out.startswith("# Set 'secret'")
    assert yaml.safe_load(answer.out)["definition"]["datasets"]["shops"]["key"] == ["id"]

    as_json = Answer("source", "propose-rest", str(document), "--json").json
    assert as_json["settings"]["url"] == "https://shop.example.org/api/v2"

    missing = Answer("source", "propose-rest", str(tmp_path / "none.yaml"), "--json")
    assert (missing.code, missing.json["error"]["code"]) == (1, "configuration.invalid")
