"""Protected values open with their key, at their place, unaltered; and in no other case."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors.errors import ConfigurationError
from apps.core import protected
from apps.core.protected import ProtectedValueError, parse_keys, seal, seal_json, unseal

PLACE = "source|1|secrets"
OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the keys that are in use from now on."""

    def use(text: str) -> None:
        monkeypatch.setenv("LOCKSTEP_ENCRYPTION_KEYS", text)
        protected._keys.cache_clear()

    use(OLD)
    return use


@given(st.binary(max_size=300), st.text(max_size=40))
def test_what_was_sealed_opens_at_its_place(plain, place):
    assert unseal(seal(plain, place), place) == plain


def test_json_comes_back_as_it_was(keys):
    value = {"password": "grün", "n": [1, None]}

    assert protected.unseal_json(memoryview(seal_json(value, PLACE)), PLACE) == value


def test_the_plain_value_is_not_in_the_stored_form(keys):
    assert b"swordfish" not in seal(b"swordfish", PLACE)


def test_the_same_value_is_stored_differently_each_time(keys):
    assert seal(b"x", PLACE) != seal(b"x", PLACE)


def test_a_value_moved_to_another_row_does_not_open(keys):
    with pytest.raises(ProtectedValueError, match="altered or moved"):
        unseal(seal(b"x", PLACE), "source|2|secrets")


def test_no_byte_can_be_altered(keys):
    sealed = seal(b"value", PLACE)

    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(ProtectedValueError):
            unseal(bytes(altered), PLACE)


def test_a_value_cut_short_is_refused_at_any_length(keys):
    sealed = seal(b"value", PLACE)

    for length in range(len(sealed)):
        with pytest.raises(ProtectedValueError):
            unseal(sealed[:length], PLACE)


def test_a_new_key_in_front_seals_and_the_old_one_still_opens(keys):
    before = seal(b"x", PLACE)
    keys(f"{NEW}\n{OLD}\n")
    after = seal(b"x", PLACE)

    assert unseal(before, PLACE) == b"x"
    keys(NEW)
    assert unseal(after, PLACE) == b"x"
    with pytest.raises(ProtectedValueError, match="key of this value is not there"):
        unseal(before, PLACE)


def test_another_key_of_the_same_name_does_not_open(keys):
    sealed = seal(b"x", PLACE)
    keys(NEW.replace("new:", "old:"))

    with pytest.raises(ProtectedValueError, match="altered or moved"):
        unseal(sealed, PLACE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "no-colon",
        ":" + base64.b64encode(bytes(32)).decode(),
        "k1:not base64",
        "k1:" + base64.b64encode(bytes(16)).decode(),
        "k1:" + base64.b64encode(bytes(33)).decode(),
        "x" * 256 + ":" + base64.b64encode(bytes(32)).decode(),
        f"{OLD}\nbroken",
        "é:" + base64.b64encode(bytes(32)).decode(),
        f"{OLD}\n{OLD.replace('b29v', 'b29w')}",
    ],
)
def test_keys_that_cannot_be_used_are_refused(text):
    with pytest.raises(ConfigurationError, match="encryption key"):
        parse_keys(text)


def test_an_error_about_a_key_does_not_show_it():
    with pytest.raises(ConfigurationError) as error:
        parse_keys("k1:c2VjcmV0LWtleQ==")

    assert "c2VjcmV0" not in str(error.value)
    assert error.value.where == "LOCKSTEP_ENCRYPTION_KEYS"


def test_keys_keep_their_order():
    assert list(parse_keys(f"{NEW} {OLD}")) == ["new", "old"]
