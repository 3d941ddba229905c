"""By which words a value is found that is kept sealed: the same for who keeps and who searches.

A value is evened out (accents, case and the width of characters do not count) and cut into words.
An address of mail is one word. A number is one, with its sign and without zeros at its end, as a
whole value or within a text; whole numbers of six digits and more, and telephone numbers, become
their last digits, so that they are found with and without the code of their country. A search
finds what holds all of its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from apps.core.keys.blind import blind_hash

TOKEN_BYTES = 16
MOST_WORDS = 20  # of one value; a longer text is found by its beginning
LONGEST_WORD = 100
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d*?)0*)?")
_PHONE = re.compile(r"\+?[\d\s()./-]{6,30}")
_FEWEST_DIGITS = 6  # of a telephone number
_PHONE_DIGITS = 9
_INNER = r"[^\s<>()\[\],;:?\"]"
_PIECE = re.compile(rf"(?:mailto:)?(?P<mail>{_INNER}+@{_INNER}+)|{_INNER}+")


def words_of(value: str) -> list[str]:
    """The words of a value, each once, in their order; at most MOST_WORDS."""
    text = _evened(value[: MOST_WORDS * LONGEST_WORD])
    whole = _digits_word(text)
    found = dict.fromkeys([whole] if whole else _words(text))
    return [word[:LONGEST_WORD] for word in found][:MOST_WORDS]


def token(word: str) -> bytes:
    """What stands for a word in the database."""
    return blind_hash("word", word)[:TOKEN_BYTES]


def _words(text: str) -> Iterator[str]:
    for piece in _PIECE.finditer(text):
        mail = (piece["mail"] or "").strip(".'")
        whole = mail or _digits_word(piece[0].strip(".'"))
        if whole:
            yield whole
            continue
        for word in re.findall(r"\w+", piece[0]):
            yield _digits_word(word) or word


def _digits_word(text: str) -> str:
    """The one word of a number; empty where the text is none."""
    digits = re.sub(r"\D", "", text)
    number = _NUMBER.fullmatch(text)
    if number:
        sign, digits, fraction = number.groups()
        if sign == "-" or fraction or len(digits) < _FEWEST_DIGITS:
            return sign.strip("+") + digits + (f".{fraction}" if fraction else "")
    if len(digits) >= _FEWEST_DIGITS and (number or _PHONE.fullmatch(text)):
        return "#" + digits[-_PHONE_DIGITS:]
    return ""


def _evened(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold().strip()
