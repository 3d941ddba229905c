"""What is kept of a person goes with the person's key, and does not come back with a backup."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core.keys import subjects
from apps.core.keys.subjects import blind_index, subject_sealers
from apps.core.models import SubjectKey
from apps.core.protected import ErasedValueError, ProtectedValueError, seal, unseal
from apps.encryption import services
from apps.encryption.services import rotation as rotating
from apps.encryption.services.register import RegisterUnwritable, register_file
from apps.ledger.models import ERASED, FormerValue, Rejection
from apps.ledger.selectors import copies_beyond_subjects
from apps.ledger.selectors.words import token
from apps.runs.models import Run
from apps.runs.services import follow_searchable_fields, keep_former_values_of_runs
from apps.sources.models import Dataset
from tests.people import administrator, person, signed_in
from tests.platforms import PLAIN_FIELDS, Pair
from tests.two_way import TwoWay

pytestmark = pytest.mark.django_db(transaction=True)
PLACE = "rejection|1|record"


@pytest.fixture(autouse=True)
def _register(tmp_path: Path, settings: Any) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "ERASURE_REGISTER": tmp_path / "erasures.log"}
    subjects.forget_subject_keys()


@pytest.fixture
def customers(tmp_path: Path) -> Dataset:
    """Two customers whose names are missing on the way, so that they are kept out."""
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    left = pair.mapping.left
    left.subject_field = "id"
    left.save()
    left.fields.filter(name="email").update(personal_data="contact")
    for number in (1, 2):
        pair.on_left(
            f"INSERT INTO customers VALUES ({number}, NULL, 'ada{number}@example.org', 1, NULL)"
        )
    pair.run()
    assert len(pair.open_rejections()) == 2
    return left


def rejection(number: int) -> Rejection:
    return Rejection.objects.get(left_key__contains=str(number))


def erase(dataset: Dataset, value: str = "1", **given: Any) -> int:
    given = {"actor": None, "reason": "asked for it", **given}
    return services.erase_subject(dataset.pk, value, **given).keys


def test_what_is_kept_of_a_person_is_under_the_persons_key(customers: Dataset):
    heads = {bytes(row.sealed_record)[:9] for row in Rejection.objects.all()}

    assert len(heads) == 2
    assert {head[0] for head in heads} == {3}
    assert SubjectKey.objects.count() == 2
    assert rejection(1).record()["email"] == "ada1@example.org"


def test_nobody_is_named_by_the_table_of_keys(customers: Dataset):
    assert {bytes(key.index) for key in SubjectKey.objects.all()} == {
        blind_index(customers.pk, "1"),
        blind_index(customers.pk, "2"),
    }
    assert blind_index(customers.pk, "1") != blind_index(Dataset.objects.last().pk, "1")


def test_a_dataset_without_a_class_has_no_keys_of_subjects(tmp_path: Path):
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    Dataset.objects.filter(pk=pair.mapping.left_id).update(subject_field="id")
    pair.on_left("INSERT INTO customers VALUES (1, NULL, 'ada@example.org', 1, NULL)")
    pair.run()

    assert bytes(Rejection.objects.get().sealed_record)[0] == 2
    assert not SubjectKey.objects.exists()


def test_whoever_is_erased_cannot_be_read_and_others_can(customers: Dataset):
    one = rejection(1)
    assert one.message

    assert erase(customers) == 1

    assert (rejection(1).message, rejection(1).record(), rejection(1).raw()) == (ERASED, None, "")
    with pytest.raises(ErasedValueError):
        unseal(one.sealed_record, f"rejection|{one.pk}|record")
    assert rejection(2).record()["email"] == "ada2@example.org"
    event = AuditEvent.objects.get(action="subject.erased")
    assert (event.reason, event.details["keys"]) == ("asked for it", 1)


def test_pages_of_who_was_erased_open(customers: Dataset):
    erase(customers)
    client = signed_in(administrator())

    for address in (
        reverse("admin:ledger_rejection_changelist"),
        reverse("admin:ledger_rejection_change", args=(rejection(1).pk,)),
    ):
        page = client.get(address)
        assert page.status_code == 200
        assert ERASED in page.content.decode()
        assert "ada1@" not in page.content.decode()


def test_the_proof_tells_what_was_erased_from_what_cannot_be_read(customers: Dataset):
    erase(customers)
    proven = services.prove(actor=None)
    states = {column.column: column for column in proven.columns}

    assert proven.is_sound
    assert states["ledger.rejection.sealed_record"].erased == 1
    assert states["core.subjectkey.sealed_key"].values == 1

    SubjectKey.objects.filter(erased_at=None).delete()
    subjects.forget_subject_keys()
    assert services.prove(actor=None).unreadable > 0


def test_a_rotation_renews_the_keys_and_leaves_what_is_under_them(
    customers: Dataset, monkeypatch: pytest.MonkeyPatch
):
    for name in ("LIST_SECONDS", "MARGIN_SECONDS", "PAUSE_SECONDS"):
        monkeypatch.setattr(rotating, name, 0)
    before = bytes(rejection(1).sealed_record)
    keys = {bytes(key.sealed_key) for key in SubjectKey.objects.all()}
    rotation = services.start_rotation(actor=None)
    while rotation.is_running:
        rotation = services.continue_rotation(rotation.pk, 5)
    subjects.forget_subject_keys()

    assert bytes(rejection(1).sealed_record) == before
    assert not keys & {bytes(key.sealed_key) for key in SubjectKey.objects.all()}
    assert rejection(1).record()["email"] == "ada1@example.org"
    assert rotation.passes <= 3


def test_whoever_comes_back_after_an_erasure_has_another_key(customers: Dataset):
    sealed = seal(b"before", PLACE, subject_sealers(customers.pk, ["1"])["1"])
    erase(customers)

    again = seal(b"after", PLACE, subject_sealers(customers.pk, ["1"])["1"])

    assert unseal(again, PLACE) == b"after"
    with pytest.raises(ErasedValueError):
        unseal(sealed, PLACE)


def test_the_same_person_has_the_same_key(customers: Dataset):
    first = subject_sealers(customers.pk, ["1", "7"])
    second = subject_sealers(customers.pk, ["7", "1"])

    assert {v: s.head for v, s in first.items()} == {v: s.head for v, s in second.items()}
    assert SubjectKey.objects.count() == 3


def test_keys_of_many_are_found_in_few_questions(django_assert_max_num_queries: Any):
    dataset = UUID(int=5)
    values = [str(n) for n in range(1_200)]
    with django_assert_max_num_queries(25):
        assert len(subject_sealers(dataset, values)) == 1_200
    with django_assert_max_num_queries(3):
        assert len(subject_sealers(dataset, values)) == 1_200


# After a restore


def restored(customers: Dataset) -> bytes:
    """Erase somebody, then bring the table back as a backup has it; what the backup can read."""
    kept = list(SubjectKey.objects.values())
    sealed = bytes(rejection(1).sealed_record)
    erase(customers)
    SubjectKey.objects.all().delete()
    SubjectKey.objects.bulk_create([SubjectKey(**row) for row in kept])
    subjects.forget_subject_keys()
    assert rejection(1).record() is not None
    return sealed


def test_a_restore_does_not_bring_back_whom_the_register_names(customers: Dataset):
    restored(customers)

    replayed = services.replay_erasures()

    assert (replayed.entries, replayed.erased, replayed.strange) == (1, 1, [])
    assert rejection(1).record() is None
    assert rejection(2).record() is not None
    assert services.replay_erasures().erased == 0


def test_a_replay_leaves_who_came_back_after_the_erasure(customers: Dataset):
    erase(customers)
    sealed = seal(b"after", PLACE, subject_sealers(customers.pk, ["1"])["1"])

    services.replay_erasures()

    assert unseal(sealed, PLACE) == b"after"


def test_a_line_that_somebody_added_erases_nobody(customers: Dataset):
    restored(customers)
    line = json.loads(register_file().read_text())
    other = {**line, "index": blind_index(customers.pk, "2").hex()}
    with register_file().open("a") as stream:
        stream.write(json.dumps(other) + "\nscribble\n")

    replayed = services.replay_erasures()

    assert (replayed.erased, replayed.strange) == (1, [2, 3])
    assert rejection(2).record() is not None


def test_the_register_names_nobody(customers: Dataset):
    erase(customers)

    text = register_file().read_text()
    assert set(json.loads(text)) == {"at", "index", "dataset", "mac"}
    assert register_file().stat().st_mode & 0o077 == 0


def test_without_a_register_nothing_is_erased(customers: Dataset, tmp_path: Path, settings: Any):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "ERASURE_REGISTER": tmp_path}

    with pytest.raises(RegisterUnwritable):
        erase(customers)

    assert rejection(1).record() is not None
    assert not AuditEvent.objects.filter(action="subject.erased").exists()


def test_erasing_needs_its_permission(customers: Dataset):
    with pytest.raises(PermissionDenied):
        erase(customers, actor=person("looks", "core.view_datakey"))
    assert not register_file().exists()

    assert erase(customers, actor=person("officer", "core.erase_subjectkey")) == 1


def test_a_value_whose_key_was_taken_away_is_not_said_to_be_erased(customers: Dataset):
    sealed = seal(b"x", PLACE, subject_sealers(customers.pk, ["1"])["1"])
    SubjectKey.objects.all().delete()

    with pytest.raises(ProtectedValueError) as error:
        unseal(sealed, PLACE)
    assert not isinstance(error.value, ErasedValueError)


def test_the_command_line_erases_and_says_what_is_left(customers: Dataset):
    out = StringIO()
    words = ["encryption", "erase", str(customers), "1", "--reason", "asked", "--json"]
    call_command("lockstep", *words, stdout=out)
    left = {"segments": 0, "changes": 0, "words": 0}
    assert json.loads(out.getvalue()) == {"keys": 1, "traces": 0, **left}
    assert rejection(1).record() is None

    out = StringIO()
    call_command("lockstep", "encryption", "replay-erasures", "--json", stdout=out)
    assert json.loads(out.getvalue())["entries"] == 1


# Words of former values


@pytest.fixture
def renamed(tmp_path: Path) -> TwoWay:
    """Three contacts whose names were changed; `id` says who they are, and is their key."""
    pair = TwoWay(tmp_path)
    name_subject(pair, "id")
    pair.add_contacts(3)
    pair.run()
    rename_all(pair)
    return pair


def name_subject(pair: TwoWay, field: str) -> None:
    Dataset.objects.filter(pk=pair.mapping.left_id).update(subject_field=field)


def rename_all(pair: TwoWay) -> None:
    pair.on_left("UPDATE contacts SET name = 'Renamed ' || id")
    pair.run()
    keep_former_values_of_runs()
    assert words_found(pair) == 3


def words_found(pair: TwoWay) -> int:
    return FormerValue.objects.filter(token=token("lopez")).count()


def test_words_of_former_values_go_with_the_person(renamed: TwoWay):
    done = services.erase_subject(renamed.mapping.left_id, "1", actor=None, reason="asked")
    assert done.traces > 0
    assert words_found(renamed) == 2
    event = AuditEvent.objects.get(action="subject.erased")
    assert event.details["traces"] == done.traces


def test_nobody_keeps_words_anew_of_who_was_erased(renamed: TwoWay):
    erase(renamed.mapping.left)
    Run.objects.update(former_values_kept=False)
    keep_former_values_of_runs()
    assert words_found(renamed) == 2

    renamed.on_left("UPDATE contacts SET name = 'Lopez again' WHERE id = 1")
    renamed.run()
    renamed.on_left("UPDATE contacts SET name = 'Somebody' WHERE id = 1")
    renamed.run()
    keep_former_values_of_runs()
    assert words_found(renamed) == 3  # of what came after the erasure


def test_words_come_back_with_no_restore(renamed: TwoWay):
    kept = list(FormerValue.objects.values())
    erase(renamed.mapping.left)
    SubjectKey.objects.all().delete()
    FormerValue.objects.all().delete()
    FormerValue.objects.bulk_create([FormerValue(**row) for row in kept])
    assert words_found(renamed) == 3

    assert services.replay_erasures().traces > 0
    assert words_found(renamed) == 2
    Run.objects.update(former_values_kept=False)
    keep_former_values_of_runs()
    assert words_found(renamed) == 2


def test_the_proof_finds_words_of_who_was_erased(renamed: TwoWay):
    kept = list(FormerValue.objects.values())
    erase(renamed.mapping.left)
    assert services.prove(actor=None).is_sound
    FormerValue.objects.all().delete()
    FormerValue.objects.bulk_create([FormerValue(**row) for row in kept])

    proven = services.prove(actor=None)
    assert not proven.is_sound
    assert proven.traces > 0
    services.replay_erasures()
    assert services.prove(actor=None).is_sound


def test_words_of_records_of_which_nobody_knows_whom_they_are_about_go_with_anybody(renamed):
    """An edit of the name does not tell the address, which says who somebody is here."""
    name_subject(renamed, "mail")
    assert follow_searchable_fields() == 1
    keep_former_values_of_runs()
    assert words_found(renamed) == 3

    erase(renamed.mapping.left, "m.lopez1@example.com")
    assert words_found(renamed) == 0
    Run.objects.update(former_values_kept=False)
    keep_former_values_of_runs()
    assert words_found(renamed) == 0


def test_the_right_side_says_who_they_are_where_the_left_does_not(renamed: TwoWay):
    name_subject(renamed, "")
    right = renamed.mapping.right
    Dataset.objects.filter(pk=right.pk).update(subject_field="account_id")
    follow_searchable_fields()
    keep_former_values_of_runs()
    erase(right, "1")
    assert words_found(renamed) == 2


def test_a_copy_of_the_subject_field_on_the_other_side_says_who_they_are(tmp_path: Path):
    """What was deleted on the right was there whole, with the address under its name there."""
    pair = TwoWay(tmp_path)
    name_subject(pair, "mail")
    pair.add_contacts(2)
    pair.run()
    pair.on_left("DELETE FROM contacts WHERE id = 1")
    pair.run()
    keep_former_values_of_runs()
    assert words_found(pair) == 1
    erase(pair.mapping.left, "m.lopez2@example.com")
    assert words_found(pair) == 1
    erase(pair.mapping.left, "m.lopez1@example.com")
    assert words_found(pair) == 0


def test_an_erasure_says_which_words_it_does_not_reach(renamed: TwoWay):
    words = FormerValue.objects.count()
    out = StringIO()
    command = ["encryption", "erase", str(renamed.mapping.right), "1", "--reason", "x", "--json"]
    call_command("lockstep", *command, stdout=out)
    assert json.loads(out.getvalue())["words"] == words
    assert copies_beyond_subjects(renamed.mapping.left_id).words == 0
