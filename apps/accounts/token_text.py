"""What tokens look like: `lks_`, forty letters and digits at random, six that check the others.

The first letters let scanners for leaked secrets find one anywhere; the check (CRC-32) lets them,
and us, tell a token from a text that only begins like one, without asking the database.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 40  # 238 bits
CHECK_LENGTH = 6
TOKEN = "lks_"  # noqa: S105  # nosec B105  # the beginning of personal and service tokens
SHAPE = re.compile(rf"(lk[a-z]_)([0-9A-Za-z]{{{RANDOM_LENGTH}}})([0-9A-Za-z]{{{CHECK_LENGTH}}})")
SHOWN = 8  # letters of a token that may be shown: the prefix and four


def new_text(prefix: str = TOKEN) -> str:
    """A new secret text that begins with `prefix`."""
    body = prefix + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return body + _check_of(body)


def is_well_formed(text: str, prefix: str = TOKEN) -> bool:
    """Whether `text` may be one that `new_text` gave."""
    shape = SHAPE.fullmatch(text)
    if shape is None or shape[1] != prefix:
        return False
    return secrets.compare_digest(_check_of(shape[1] + shape[2]), shape[3])


def digest_of(text: str) -> str:
    """SHA-256; the text has more than enough randomness to need neither salt nor stretching."""
    return hashlib.sha256(text.encode()).hexdigest()


def hint_of(text: str) -> str:
    """The beginning, by which a person knows it again."""
    return text[:SHOWN]


def _check_of(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    while len(digits) < CHECK_LENGTH:
        number, rest = divmod(number, len(ALPHABET))
        digits = ALPHABET[rest] + digits
    return digits
