"""Processes keep unwrapped keys for a while, see new ones by themselves, and lose none."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from apps.core import keys
from apps.core.keys import KeyProviderRefused, forget_keys, providers, renew_key, rewrap_keys, ring
from apps.core.keys.ring import LIST_SECONDS
from apps.core.models import DataKey
from apps.core.protected import ProtectedValueError, derived_keys, seal, unseal
from apps.core.services import prepare_data_keys
from tests.core.keys.vault_server import TOKEN, running_vault

PLACE = "source|1|secrets"
pytestmark = pytest.mark.django_db(transaction=True)


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(ring.time, "monotonic", lambda: self.now)
        forget_keys()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def unwrapped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contexts that a provider was asked for."""
    asked: list[str] = []
    whole = providers.unwrap

    def counted(wrapped: bytes, context: str, wrapped_by: str) -> bytes:
        asked.append(context)
        return whole(wrapped, context, wrapped_by)

    monkeypatch.setattr(providers, "unwrap", counted)
    return asked


def elsewhere_renewed(monkeypatch: pytest.MonkeyPatch) -> DataKey:
    """Another process has made a new key for values: this one has not been told."""
    with monkeypatch.context() as patch:
        patch.setattr("apps.core.keys.lifecycle.forget_keys", lambda: None)
        return renew_key(DataKey.Purpose.VALUES)


def start_over() -> None:
    """Data keys that are wrapped by what is configured now."""
    DataKey.objects.all().delete()
    prepare_data_keys()


def use_keys(monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
    lines = [f"{key}:{base64.b64encode(key[:1].encode() * 32).decode()}" for key in keys]
    monkeypatch.setenv("LOCKSTEP_ENCRYPTION_KEYS", "\n".join(lines))
    forget_keys()


def test_no_value_costs_a_query(django_assert_num_queries: Any):
    seal(b"x", PLACE)

    with django_assert_num_queries(0):
        for _ in range(100):
            unseal(seal(b"x", PLACE), PLACE)


def test_a_new_active_key_is_noticed_without_a_restart(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    old = seal(b"x", PLACE)
    new = elsewhere_renewed(monkeypatch)
    assert seal(b"x", PLACE)[1:9] == old[1:9]

    clock.now += LIST_SECONDS

    assert seal(b"x", PLACE)[1:9] == new.pk.to_bytes(8)
    assert unseal(old, PLACE) == b"x"


def test_what_another_process_sealed_with_a_new_key_opens_at_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    seal(b"x", PLACE)
    before = ring._ring
    elsewhere_renewed(monkeypatch)
    ring._ring = None
    foreign = seal(b"y", PLACE)
    ring._ring = before  # however fresh its list is

    assert unseal(foreign, PLACE) == b"y"


def test_a_key_that_is_nowhere_is_looked_for_once_a_second(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    damaged = bytes([2]) + b"no such!" + seal(b"x", PLACE)[9:]
    reads: list[None] = []
    rows = ring._rows
    monkeypatch.setattr(ring, "_rows", lambda: reads.append(None) or rows())
    for moment in (0.0, 0.5, 0.6):
        clock.now += moment
        with pytest.raises(ProtectedValueError):
            unseal(damaged, PLACE)
    assert len(reads) == 2


def test_a_key_is_unwrapped_once_until_its_time_is_over(
    clock: Clock, unwrapped: list[str], settings
):
    seal(b"x", PLACE)
    asked = len(unwrapped)
    for _ in range(5):
        clock.now += LIST_SECONDS
        seal(b"x", PLACE)
    assert len(unwrapped) == asked

    clock.now += settings.DATA_KEY_SECONDS
    seal(b"x", PLACE)

    assert len(unwrapped) == 2 * asked


def test_a_provider_that_fails_for_a_while_does_not_stop_what_is_unwrapped(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, settings: Any
):
    value = seal(b"x", PLACE)

    def fails(*arguments: Any) -> bytes:
        raise keys.KeyProviderUnreachable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(providers, "unwrap", fails)
        clock.now += LIST_SECONDS
        assert unseal(value, PLACE) == b"x"
        clock.now += settings.DATA_KEY_SECONDS
        with pytest.raises(keys.KeyProviderUnreachable):
            unseal(value, PLACE)
        with pytest.raises(keys.KeyProviderUnreachable):
            seal(b"x", PLACE)
    clock.now += ring.AGAIN_SECONDS

    assert unseal(value, PLACE) == b"x"


def test_one_key_that_cannot_be_opened_does_not_take_the_others_along():
    old = seal(b"x", PLACE)
    renew_key(DataKey.Purpose.VALUES)
    DataKey.objects.filter(purpose="values", state="retired").update(wrapped=b"altered" * 9)
    forget_keys()

    assert unseal(seal(b"y", PLACE), PLACE) == b"y"
    with pytest.raises(KeyProviderRefused, match="another one, or the wrapped key was altered"):
        unseal(old, PLACE)


def test_a_key_is_used_once_the_transaction_that_made_it_is_committed():
    before = seal(b"x", PLACE)
    with transaction.atomic():
        renew_key(DataKey.Purpose.VALUES)
        forget_keys()
        meanwhile = seal(b"x", PLACE)
        transaction.set_rollback(True)

    assert meanwhile[1:9] == before[1:9]
    assert unseal(meanwhile, PLACE) == b"x"


def test_a_list_can_be_read_in_a_transaction_that_has_failed():
    value = seal(b"x", PLACE)
    with transaction.atomic():
        with suppress(IntegrityError), transaction.atomic():
            DataKey.objects.create(purpose="values")
        transaction.set_rollback(True)
        forget_keys()
        assert unseal(value, PLACE) == b"x"


def test_without_any_key_it_is_told_what_to_do():
    DataKey.objects.all().delete()
    forget_keys()

    with pytest.raises(keys.DataKeyMissing) as error:
        seal(b"x", PLACE)
    assert "migrate" in error.value.remedy


def test_a_flush_leaves_new_keys():
    before = seal(b"x", PLACE)
    call_command("flush", interactive=False, verbosity=0)

    after = seal(b"x", PLACE)

    assert before[1:9] != after[1:9] == DataKey.objects.get(purpose="values").pk.to_bytes(8)


def test_only_one_key_is_active_for_a_purpose():
    renew_key(DataKey.Purpose.VALUES)
    renew_key(DataKey.Purpose.VALUES)

    states = list(DataKey.objects.filter(purpose="values").values_list("state", flat=True))
    assert sorted(states) == ["active", "retired", "retired"]


def test_keyed_hashes_of_a_retired_key_can_still_be_told():
    before = dict(derived_keys("audit"))
    renew_key(DataKey.Purpose.HASHES)
    after = derived_keys("audit")

    assert next(iter(after)) not in before
    assert before.items() <= after.items()


def test_rewrapping_moves_every_key_to_the_new_key_encryption_key(monkeypatch: pytest.MonkeyPatch):
    use_keys(monkeypatch, "old")
    start_over()
    value = seal(b"x", PLACE)
    renew_key(DataKey.Purpose.VALUES)
    use_keys(monkeypatch, "new", "old")

    assert len(rewrap_keys()) == len(DataKey.Purpose) + 1
    use_keys(monkeypatch, "new")

    assert unseal(value, PLACE) == b"x"
    assert set(DataKey.objects.values_list("wrapped_by", flat=True)) == {"local:new"}


def test_without_the_old_key_rewrapping_says_which_one_is_missing(monkeypatch: pytest.MonkeyPatch):
    use_keys(monkeypatch, "old")
    start_over()
    seal(b"x", PLACE)
    use_keys(monkeypatch, "new")

    with pytest.raises(KeyProviderRefused, match="'old' is not there"):
        rewrap_keys()
    assert set(DataKey.objects.values_list("wrapped_by", flat=True)) == {"local:old"}


def test_keys_move_from_a_file_to_vault_and_back(monkeypatch: pytest.MonkeyPatch):
    use_keys(monkeypatch, "old")
    start_over()
    value = seal(b"x", PLACE)
    with running_vault() as vault:
        monkeypatch.setenv("LOCKSTEP_KEY_PROVIDER", "vault")
        monkeypatch.setenv("LOCKSTEP_VAULT_ADDRESS", vault.address)
        monkeypatch.setenv("LOCKSTEP_VAULT_TOKEN", TOKEN)
        rewrap_keys()
        monkeypatch.delenv("LOCKSTEP_ENCRYPTION_KEYS")
        forget_keys()

        assert unseal(value, PLACE) == b"x"
        assert set(DataKey.objects.values_list("wrapped_by", flat=True)) == {
            "vault:transit/lockstep"
        }

        monkeypatch.setenv("LOCKSTEP_KEY_PROVIDER", "local")
        use_keys(monkeypatch, "new")
        rewrap_keys()

    forget_keys()
    assert unseal(value, PLACE) == b"x"


def test_a_key_is_not_shown_by_its_representation():
    seal(b"x", PLACE)

    for key in keys.current_ring().open.values():
        assert "secret" not in repr(key)


def test_environment_refuses_a_provider_that_is_not_whole(monkeypatch: pytest.MonkeyPatch):
    from config.environment import Environment

    for name, value in {
        "LOCKSTEP_KEY_PROVIDER": "vault",
        "LOCKSTEP_VAULT_ADDRESS": "http://vault.example",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="must begin with https"):
        Environment()
    monkeypatch.setenv("LOCKSTEP_VAULT_ADDRESS", "https://vault.example")
    with pytest.raises(ValueError, match="LOCKSTEP_VAULT_TOKEN"):
        Environment()
    monkeypatch.setenv("LOCKSTEP_KEY_PROVIDER", "aws-kms")
    monkeypatch.delenv("LOCKSTEP_VAULT_ADDRESS")
    with pytest.raises(ValueError, match="LOCKSTEP_KMS_KEY_ID"):
        Environment()
