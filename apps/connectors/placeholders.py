"""Values for a moment: what a field that must be unique may hold while its value is passed on.

Nobody can promise that no record has such a value, that it fits the field and that the table's
checks let it pass. So there are several, each of another kind; the target takes one or refuses it.
"""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from apps.connectors.types import Kind, NeutralType

_TOKEN = 16  # characters of a text that nobody has by chance
_YEARS = ((1000, 1800), (2100, 2900), (1971, 2037))
_NEAR = (100, 10, 10, 3)


def placeholders(kind: NeutralType, old: Any) -> Iterator[Any]:
    """Values other than the old one, in the type's Arrow storage; none where it has no room."""
    make = _MAKERS.get(kind.kind)
    if make is not None and old is not None:
        yield from (value for value in make(kind, old) if value != old)


def _texts(kind: NeutralType, old: str) -> Iterator[str]:
    """Nobody's; then such as checks of the form let pass: with the old one in it, or like it."""
    room = kind.length
    if room is None or room >= _TOKEN:
        token = secrets.token_hex(32)
        yield token[: room or len(token)]
        if room is None or room >= _TOKEN + len(old):
            yield token[:_TOKEN] + old
    for _ in range(3):
        yield _alike(old)
    if room is None or room > len(old):
        yield _alike(old + "0") if old[-1:].isdigit() else _alike(old + "a")


def _alike(text: str) -> str:
    """A text of the same form: digits for digits, letters for letters."""
    return "".join(secrets.choice(_letters(letter)) for letter in text)


def _letters(letter: str) -> str:
    for letters in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
        if letter in letters:
            return letters
    return string.ascii_lowercase if letter.isalpha() else letter


def _integers(kind: NeutralType, old: int) -> Iterator[int]:
    for bits in (31, 15, 7):
        yield -secrets.randbelow(2**bits) - 1
        yield secrets.randbelow(2**bits)
    for reach in _NEAR:
        near = old + _step(reach)
        yield near if -(2**63) <= near < 2**63 else old // 2


def _step(reach: int) -> int:
    """Up or down, but for nothing."""
    return secrets.choice((-1, 1)) * (secrets.randbelow(reach) + 1)


def _decimals(kind: NeutralType, old: Decimal | str) -> Iterator[Decimal | str]:
    """Within precision and scale; far away, then near."""
    scale, most = kind.scale or 0, 10 ** (kind.precision or 30) - 1
    units = int(Decimal(old) * 10**scale)
    found = [_step(min(most, 10**18)), _step(min(most, 10**18))]
    found += [units + _step(reach * size) for size in (10**scale, 1) for reach in _NEAR]
    for number in found:
        if abs(number) <= most:
            value = Decimal(f"{number}E-{scale}")
            yield format(value, "f") if kind.is_wide_decimal else value


def _floats(kind: NeutralType, old: float) -> Iterator[float]:
    yield float(-secrets.randbelow(2**24) - 1)
    yield float(secrets.randbelow(2**24))
    yield secrets.randbelow(2**10) / 2**10


def _days() -> Iterator[timedelta]:
    """Since the year 1."""
    for first, last in _YEARS:
        yield timedelta(days=int(365.2425 * first) + secrets.randbelow((last - first) * 365))


def _dates(kind: NeutralType, old: date) -> Iterator[date]:
    yield from (date.min + days for days in _days())
    for reach in _NEAR:
        yield _moved(old, timedelta(days=_step(reach)))


def _moved(old: Any, by: timedelta) -> Any:
    try:
        return old + by
    except OverflowError:
        return old - by


def _timestamps(kind: NeutralType, old: datetime) -> Iterator[datetime]:
    """To the second: no field keeps less."""
    for days in _days():
        moment = datetime.min + days + timedelta(seconds=secrets.randbelow(86_400))  # noqa: DTZ901 - wall clock
        yield moment.replace(tzinfo=old.tzinfo)
    for reach in _NEAR:
        yield _moved(old, timedelta(seconds=_step(reach)))


def _times(kind: NeutralType, old: time) -> Iterator[time]:
    for _ in _NEAR:
        hour, rest = divmod(secrets.randbelow(86_400), 3600)
        yield time(hour, *divmod(rest, 60))


def _bytes(kind: NeutralType, old: bytes) -> Iterator[bytes]:
    yield secrets.token_bytes(_TOKEN)
    for _ in _NEAR:
        yield secrets.token_bytes(len(old))


def _uuids(kind: NeutralType, old: str) -> Iterator[str]:
    yield str(uuid.uuid4())


def _booleans(kind: NeutralType, old: bool) -> Iterator[bool]:
    """Enough where the field is unique together with others."""
    yield not old


_MAKERS: dict[Kind, Callable[[NeutralType, Any], Iterator[Any]]] = {
    Kind.TEXT: _texts,
    Kind.INTEGER: _integers,
    Kind.DECIMAL: _decimals,
    Kind.FLOAT: _floats,
    Kind.DATE: _dates,
    Kind.TIMESTAMP: _timestamps,
    Kind.TIMESTAMPTZ: _timestamps,
    Kind.TIME: _times,
    Kind.BYTES: _bytes,
    Kind.UUID: _uuids,
    Kind.BOOLEAN: _booleans,
}
