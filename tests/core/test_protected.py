"""Protected values open with their key, at their place, unaltered; and in no other case."""

from __future__ import annotations

import base64
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core import protected
from apps.core.keys import destroy_key, forget_keys, renew_key
from apps.core.models import DataKey
from apps.core.protected import ProtectedValueError, seal, seal_json, unseal

PLACE = "source|1|secrets"
pytestmark = pytest.mark.django_db(transaction=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.text(max_size=40))
def test_what_was_sealed_opens_at_its_place(plain, place):
    assert unseal(seal(plain, place), place) == plain


def test_json_comes_back_as_it_was():
    value = {"password": "grün", "n": [1, None]}

    assert protected.unseal_json(memoryview(seal_json(value, PLACE)), PLACE) == value


def test_the_plain_value_is_not_in_the_stored_form():
    assert b"swordfish" not in seal(b"swordfish", PLACE)


def test_the_same_value_is_stored_differently_each_time():
    assert seal(b"x", PLACE) != seal(b"x", PLACE)


def test_a_value_moved_to_another_row_does_not_open():
    with pytest.raises(ProtectedValueError, match="altered or moved"):
        unseal(seal(b"x", PLACE), "source|2|secrets")


def test_no_byte_can_be_altered():
    sealed = seal(b"value", PLACE)

    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(ProtectedValueError):
            unseal(bytes(altered), PLACE)


def test_a_value_cut_short_is_refused_at_any_length():
    sealed = seal(b"value", PLACE)

    for length in range(len(sealed)):
        with pytest.raises(ProtectedValueError):
            unseal(sealed[:length], PLACE)


def test_a_new_key_seals_and_the_old_one_still_opens():
    before = seal(b"x", PLACE)
    old = DataKey.objects.get(purpose="values")
    new = renew_key(DataKey.Purpose.VALUES)
    after = seal(b"x", PLACE)

    assert (before[1:9], after[1:9]) == (old.pk.to_bytes(8), new.pk.to_bytes(8))
    assert unseal(before, PLACE) == unseal(after, PLACE) == b"x"


def test_what_was_sealed_with_a_key_that_is_destroyed_is_gone():
    before = seal(b"x", PLACE)
    old = DataKey.objects.get(purpose="values")
    renew_key(DataKey.Purpose.VALUES)
    destroy_key(old)

    with pytest.raises(ProtectedValueError, match="key of this value is not there"):
        unseal(before, PLACE)
    assert DataKey.objects.get(pk=old.pk).wrapped is None


def test_a_key_of_hashes_opens_no_value():
    hashes = DataKey.objects.get(purpose="hashes")
    forged = bytes([2]) + hashes.pk.to_bytes(8) + seal(b"x", PLACE)[9:]

    with pytest.raises(ProtectedValueError, match="key of this value is not there"):
        unseal(forged, PLACE)


def test_a_value_from_before_there_were_data_keys_opens(monkeypatch: pytest.MonkeyPatch):
    key, nonce = b"o" * 32, os.urandom(12)
    monkeypatch.setenv("LOCKSTEP_ENCRYPTION_KEYS", f"old:{base64.b64encode(key).decode()}")
    forget_keys()
    head = b"\x01\x03old"
    value = head + nonce + AESGCM(key).encrypt(nonce, b"x", head + PLACE.encode())

    assert unseal(value, PLACE) == b"x"
    with pytest.raises(ProtectedValueError, match="altered or moved"):
        unseal(value, "source|2|secrets")


def test_keys_for_other_purposes_are_their_own():
    one, two = protected.derived_keys("one"), protected.derived_keys("two")

    assert list(one) == list(two)
    assert not set(one.values()) & set(two.values())
    assert {len(key) for key in one.values()} == {32}
