"""A rotation reaches everything that is stored, loses nothing, and goes on where it was stopped."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.urls import reverse

from apps.alerts.models import Channel
from apps.alerts.services import save_channel
from apps.audit.models import AuditEvent
from apps.core.clock import now
from apps.core.models import DataKey
from apps.core.protected import seal, unseal, unseal_json
from apps.encryption import services, tasks
from apps.encryption.columns import rotated_columns, sealed_columns
from apps.encryption.models import Proof, Rotation
from apps.encryption.services import rotation as rotating
from apps.ledger.models import Change, Conflict, Link, Receipt, Rejection, Segment
from apps.sources.models import Source
from tests.hub_world import in_use
from tests.people import administrator, enrolled, person, signed_in
from tests.platforms import PLAIN_FIELDS, Pair, TwoWayPair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one process, and it knows a new key at once."""
    monkeypatch.setattr(rotating, "LIST_SECONDS", 0)
    monkeypatch.setattr(rotating, "MARGIN_SECONDS", 0)
    monkeypatch.setattr(rotating, "PAUSE_SECONDS", 0)


@pytest.fixture
def stored(tmp_path: Path, settings: Any) -> None:
    """Something in every column that a rotation has to reach."""
    (tmp_path / "loads").mkdir()
    (tmp_path / "two-way").mkdir()
    load = Pair(tmp_path / "loads", name="load", fields=PLAIN_FIELDS)
    settings.LOCKSTEP = {**settings.LOCKSTEP, "LEDGER_ROWS_LIMIT": 10}
    load.add_customers(40)
    load.run()
    load.on_left("UPDATE customers SET name = 'Other' WHERE id = 3")
    load.on_left("INSERT INTO customers VALUES (90, NULL, 'x@example.org', 1, NULL)")
    load.run()
    pair = TwoWayPair(tmp_path / "two-way", name="two", facts={"policy": "ask"})
    pair.add_customers(5)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'Left' WHERE id = 1")
    pair.on_right("UPDATE clients SET full_name = 'Right' WHERE client_id = 1")
    pair.run()
    pair.on_left("UPDATE customers SET name = 'Left again' WHERE id = 1")
    pair.run()
    Receipt.objects.create(
        rule_id=pair.rule.pk,
        partition_id=pair.rule.pk,
        sealed=seal(b"{}", Receipt.identity(pair.rule.pk)),
    )
    source = Source.objects.order_by("name")[0]
    source.sealed_secrets = seal(b'{"password": "hunter2"}', source.secrets_identity)
    source.save()
    enrolled(administrator("keeper"))
    in_use(personal=True)
    save_channel(Channel(name="Hook", kind="webhook", url="https://example.org/"), actor=None)


def rotate() -> Rotation:
    rotation = services.start_rotation(actor=None)
    for _ in range(100):
        rotation = services.continue_rotation(rotation.pk, 5)
        if not rotation.is_running:
            return rotation
    raise AssertionError("it does not come to an end")


def active_key() -> DataKey:
    return DataKey.objects.get(purpose="values", state="active")


def test_everything_is_under_the_new_key_afterwards(stored: None):
    before = services.prove(actor=None)
    kept = _contents()

    rotation = rotate()
    after = services.prove(actor=None)

    assert before.is_sound
    assert after.is_sound
    own = services.proving.OWN_KEYS
    assert set(after.keys()) == {active_key().name, own}
    assert after.keys().total() == before.keys().total()
    assert set(before.keys()) & set(after.keys()) == {own}
    assert _contents() == kept
    assert rotation.key == active_key()


def _contents() -> list[bytes]:
    """What is in the protected values, in clear."""
    return [
        unseal(value.sealed, value.place)
        for column in rotated_columns()
        for value in column.read(column.values(), "", 10_000)
    ]


def test_the_set_up_has_something_in_nearly_every_column(stored: None):
    empty = {column.label for column in sealed_columns() if not column.values().exists()}

    assert empty <= {
        "api.idempotentcall.sealed_body",
        "core.subjectkey.sealed_key",
        "ledger.change.sealed_message",
        "ledger.conflict.sealed_candidates",
        "ledger.conflict.sealed_decision",
        "ledger.rejection.sealed_edit",
        "ledger.rejection.sealed_raw",
    }


def test_values_of_the_rare_columns_open_at_their_places_too(stored: None):
    conflict, rejection = Conflict.objects.all()[0], Rejection.objects.all()[0]
    change = Change.objects.all()[0]
    for part in ("candidates", "decision"):
        sealed = seal(b'["x"]', conflict.identity(part))
        Conflict.objects.filter(pk=conflict.pk).update(**{f"sealed_{part}": sealed})
    rejection.seal_parts(message="m", record={"a": "b"}, raw="r", edit={"a": "c"})
    rejection.save()
    place = f"{Change.identity(change.partition_id, change.sequence)}|message"
    Change.objects.filter(pk=change.pk).update(sealed_message=seal(b"m", place))

    rotate()

    assert services.prove(actor=None).is_sound
    assert Conflict.objects.get(pk=conflict.pk).candidates == ["x"]
    assert Rejection.objects.get(pk=rejection.pk).edit() == {"a": "c"}
    assert Change.objects.get(pk=change.pk).message == "m"


def test_what_was_stored_reads_as_before(stored: None):
    segments = Segment.objects.count()
    assert segments
    rotate()

    assert unseal_json(
        Source.objects.exclude(sealed_secrets=None).get().sealed_secrets,
        Source.objects.exclude(sealed_secrets=None).get().secrets_identity,
    ) == {"password": "hunter2"}
    assert Conflict.objects.filter(state="open").exists()
    for link in Link.objects.exclude(sealed_base=None):
        left, right = link.base()
        assert json.loads(left or "{}")
        assert json.loads(right or "{}")


def test_a_value_that_is_written_meanwhile_is_not_lost(
    stored: None, monkeypatch: pytest.MonkeyPatch
):
    """Between reading a batch and putting it back, somebody writes one of its rows."""
    source = Source.objects.exclude(sealed_secrets=None).get()
    whole, done = rotating.bulk_exchange, []

    def late(model: Any, name: str, rows: Any) -> int:
        if model is Source and not done:
            done.append(True)
            sealed = seal(b'{"password": "newer"}', source.secrets_identity)
            Source.objects.filter(pk=source.pk).update(sealed_secrets=sealed)
        return whole(model, name, rows)

    monkeypatch.setattr(rotating, "bulk_exchange", late)
    rotate()

    assert done
    assert Source.objects.get(pk=source.pk).secrets() == {"password": "newer"}


def test_it_goes_on_where_it_was_killed(stored: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rotating, "BATCH", 2)
    whole, calls = rotating._resealed, []

    def killed(value: Any) -> bytes | None:
        calls.append(value)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return whole(value)

    monkeypatch.setattr(rotating, "_resealed", killed)
    started = services.start_rotation(actor=None)
    with pytest.raises(KeyboardInterrupt):
        services.continue_rotation(started.pk, 5)
    already = services.prove(actor=None).keys()[active_key().name]
    assert already == 14 - 14 % 2

    again = rotate()

    assert again.pk == started.pk
    assert len(calls) == services.prove(actor=None).keys()[active_key().name] + 15 - already
    assert DataKey.objects.filter(purpose="values").count() == 2


def test_two_do_not_work_on_one_rotation(stored: None):
    rotation = services.start_rotation(actor=None)
    Rotation.objects.update(worker=rotation.pk, lease_until=now() + timedelta(seconds=60))
    services.continue_rotation(rotation.pk, 5)
    assert not rotation.columns.filter(rewritten__gt=0).exists()

    Rotation.objects.update(lease_until=now() - timedelta(seconds=1))
    services.continue_rotation(rotation.pk, 5)

    assert rotation.columns.filter(rewritten__gt=0).exists()


def test_it_is_not_done_before_every_process_knows_the_key(
    stored: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rotating, "LIST_SECONDS", 60)
    rotation = services.start_rotation(actor=None)
    rotation = services.continue_rotation(rotation.pk, 2)
    assert rotation.is_running
    late = seal(b"x", "receipt|late")
    old = DataKey.objects.get(purpose="values", state="retired")
    assert late[1:9] != old.pk.to_bytes(8)

    Rotation.objects.update(known_at=now())
    rotation = services.continue_rotation(rotation.pk, 5)

    assert not rotation.is_running


def test_what_cannot_be_read_stays_and_is_told(stored: None):
    receipt = Receipt.objects.get()
    altered = bytes(receipt.sealed)[:-1] + b"?"
    Receipt.objects.update(sealed=altered)

    rotate()
    proven = services.prove(actor=None)

    assert bytes(Receipt.objects.get().sealed) == altered
    (found,) = [column for column in proven.columns if column.unreadable]
    assert (found.column, found.examples) == ("ledger.receipt.sealed", [f"row {receipt.pk}"])
    done = AuditEvent.objects.get(action="key.rotation_finished")
    assert done.details["unreadable"] == 1


def test_a_plain_value_is_found(stored: None):
    Receipt.objects.update(sealed=b'{"1": ["Ada", "ada@example.org"]}')

    proven = services.prove(actor=None)

    assert (proven.is_sound, proven.plain, proven.unreadable) == (False, 1, 0)
    assert "Ada" not in json.dumps(Proof.objects.latest().content)


def test_a_segment_that_was_altered_is_found(stored: None):
    segment = Segment.objects.all()[0]
    content = bytearray(segment.segmentcontent.content)
    content[-1] ^= 1
    type(segment.segmentcontent).objects.filter(pk=segment.pk).update(content=bytes(content))

    proven = services.prove(actor=None)

    assert proven.unreadable == 1


def test_a_spilled_file_in_clear_is_found(stored: None, tmp_path: Path, settings: Any):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "SPILL_DIR": tmp_path}
    (tmp_path / "plan-1").mkdir()
    (tmp_path / "plan-1" / "clear.tmp").write_bytes(b"Ada Lovelace, ada@example.org\n" * 4_000)
    (tmp_path / "plan-1" / "noise.tmp").write_bytes(seal(bytes(100_000), "x"))

    proven = services.prove(actor=None)

    found = {file.path: file.is_encrypted for file in proven.files if file.path.startswith("plan-")}
    assert found == {"plan-1/clear.tmp": False, "plan-1/noise.tmp": True}
    assert not proven.is_sound


# Destroying


def retire_long_ago() -> None:
    DataKey.objects.filter(state="retired").update(retired_at=now() - timedelta(days=2))


def test_a_key_is_destroyed_when_nothing_refers_to_it(stored: None):
    old = active_key()
    rotate()
    assert services.destroy_unused_keys() == []
    retire_long_ago()

    (destroyed,) = services.destroy_unused_keys()

    old.refresh_from_db()
    assert (destroyed.pk, old.state, old.wrapped) == (old.pk, "destroyed", None)
    assert DataKey.objects.get(purpose="hashes", state="retired").wrapped is not None
    assert services.prove(actor=None).is_sound
    assert AuditEvent.objects.filter(action="key.destroyed", object_id=str(old.pk)).exists()


def test_a_key_stays_while_one_value_refers_to_it(stored: None):
    value = seal(b"{}", Receipt.identity(Receipt.objects.get().partition_id))
    rotate()
    retire_long_ago()
    Receipt.objects.update(sealed=value)

    assert services.destroy_unused_keys() == []


def test_no_key_is_destroyed_while_a_rotation_runs(stored: None):
    services.start_rotation(actor=None)
    retire_long_ago()

    assert services.destroy_unused_keys() == []


# Who may


def test_rotating_and_proving_need_their_permissions():
    for service in (services.start_rotation, services.rewrap, services.prove):
        with pytest.raises(PermissionDenied):
            service(actor=person(service.__name__, "core.view_datakey"))
    services.rewrap(actor=person("keeper", "core.rotate_datakey"))
    services.prove(actor=person("auditor", "core.prove_datakey"))
    assert AuditEvent.objects.filter(action="key.proved", actor_label="auditor").exists()


def test_the_page_rotates_and_shows_how_far_it_is(stored: None, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(tasks.rotate, "delay", lambda *given: asked.append(given))
    client = signed_in(administrator())
    page = reverse("admin:core_datakey_changelist")
    assert "Not proved yet" in client.get(page).content.decode()

    assert client.post(reverse("admin:core_datakey_rotate")).status_code == 302

    assert asked == [()]
    assert "of about" in client.get(page).content.decode()
    tasks.rotate()
    tasks.prove(administrator("second").pk)
    text = client.get(page).content.decode()
    assert "of about" not in text
    assert "Everything stored is encrypted" in text
    assert active_key().name in text


def test_who_may_only_look_finds_no_button():
    client = signed_in(person("looks", "core.view_datakey"))
    page = client.get(reverse("admin:core_datakey_changelist")).content.decode()

    assert "Rotate" not in page
    for name in ("rotate", "prove"):
        address = reverse(f"admin:core_datakey_{name}")
        assert client.post(address).status_code == 403
        assert client.get(address).status_code == 405
    assert not Rotation.objects.exists()


def test_the_page_asks_for_a_recent_sign_in_before_it_rotates():
    client = signed_in(administrator())
    session = client.session
    session["confirmed_at"] = 0
    session.save()

    answer = client.post(reverse("admin:core_datakey_rotate"))

    assert "confirm" in answer["Location"]
    assert not Rotation.objects.exists()


# The command line


def lockstep(*words: str) -> tuple[int, dict[str, Any]]:
    out = StringIO()
    try:
        call_command("lockstep", *words, "--json", stdout=out)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    return code, json.loads(out.getvalue())


def test_the_command_line_rotates_and_proves(stored: None):
    code, told = lockstep("encryption", "rotate")
    assert (code, told["state"], told["unreadable"]) == (0, "done", 0)

    code, told = lockstep("encryption", "audit")
    assert (code, told["sound"], told["plain"]) == (0, True, 0)

    Receipt.objects.update(sealed=b"plain")
    assert lockstep("encryption", "audit")[0] == 1
    assert lockstep("encryption", "rewrap")[1]["keys"]
