"""By which words a value is found that is kept sealed: the same for who keeps and who searches.

A value is evened out (accents, case and the width of characters do not count) and cut into words;
an address of mail stays whole, a telephone number becomes its last digits, so that it is found
with and without the code of its country, and a number has no zeros at its end. A search finds what
holds all of its words.
"""

from __future__ import annotations

import re
import unicodedata

from apps.core.keys.blind import blind_hash

TOKEN_BYTES = 16
MOST_WORDS = 20  # of one value; a longer text is found by its beginning
LONGEST_WORD = 100
_PHONE = re.compile(r"\+?[\d\s()./-]{6,30}")
_PHONE_DIGITS = 9
_FRACTION = re.compile(r"(-?\d+)\.(\d*?)0*")


def words_of(value: str) -> list[str]:
    """The words of a value, each once, in their order; at most MOST_WORDS."""
    text = _evened(value[: MOST_WORDS * LONGEST_WORD])
    digits = re.sub(r"\D", "", text)
    if len(digits) >= 6 and _PHONE.fullmatch(text):
        return ["#" + digits[-_PHONE_DIGITS:]]
    if fraction := _FRACTION.fullmatch(text):
        return [".".join(filter(None, fraction.groups()))]
    found: dict[str, None] = {}
    for piece in text.split():
        mail = piece.strip("<>()[],;:.\"'")
        for word in [mail] if "@" in mail else re.findall(r"\w+", piece):
            found[word[:LONGEST_WORD]] = None
    return list(found)[:MOST_WORDS]


def token(word: str) -> bytes:
    """What stands for a word in the database."""
    return blind_hash("word", word)[:TOKEN_BYTES]


def _evened(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold().strip()
