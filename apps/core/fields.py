"""Columns of protected values, which say what these are bound to, and of indices of persons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from string import Formatter
from typing import Any

from django.core import checks
from django.db import models


class SealedField(models.BinaryField):  # type: ignore[type-arg]
    """Holds what `protected.seal` gave; NULL where there is nothing.

    place: the identity that the values are sealed for, with the names of the columns that it is
    made of, also over relations: `change|{partition_id}|{sequence}`. Whoever rotates keys, or
    proves what is stored, opens each value by it. To the database it is a column of bytes.
    """

    def __init__(self, *args: Any, place: str = "", **kwargs: Any) -> None:
        self.place = place
        super().__init__(*args, **kwargs)

    @cached_property
    def place_columns(self) -> tuple[str, ...]:
        """The names in `place`, in their order."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.place) if name)

    @cached_property
    def _template(self) -> str:
        """`place` with `{}` for each column."""
        return "".join(
            text + ("{}" if name else "") for text, name, _, _ in Formatter().parse(self.place)
        )

    def place_of(self, values: Sequence[Any]) -> str:
        """The identity, from the values of `place_columns`; bytes as hexadecimal digits."""
        texts = [bytes(v).hex() if isinstance(v, bytes | memoryview) else v for v in values]
        return self._template.format(*texts)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.BinaryField", args, kwargs

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        found = super().check(**kwargs)
        if not self.place:
            found.append(
                checks.Error(
                    "A sealed column has to say what its values are bound to.",
                    hint="Give it `place`.",
                    obj=self,
                    id="lockstep.E101",
                )
            )
        return found


class SealedContentField(SealedField):
    """Holds what `protected.seal_large` gave, encrypted with a key of its own.

    key_column: where that key lies, sealed; its place ends in `|key`.
    """

    def __init__(self, *args: Any, key_column: str = "", **kwargs: Any) -> None:
        self.key_column = key_column
        super().__init__(*args, **kwargs)


class SubjectIndexField(models.BinaryField):  # type: ignore[type-arg]
    """Says whom a row is about, by blind index (`core.keys.subjects`); NULL: no person.

    The row goes when the person is erased. Whoever erases finds such rows by this field.
    time: the column that says when the row's content was met; what was met after an erasure is
    about somebody else.
    """

    def __init__(self, *args: Any, time: str = "", **kwargs: Any) -> None:
        self.time = time
        super().__init__(*args, **{"max_length": 32, "null": True, **kwargs})

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.BinaryField", args, kwargs

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        found = super().check(**kwargs)
        if not self.time:
            found.append(
                checks.Error(
                    "An index of a person has to say when its row's content was met.",
                    hint="Give it `time`.",
                    obj=self,
                    id="lockstep.E102",
                )
            )
        return found
