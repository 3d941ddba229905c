"""What all sections of a configuration file share: names, references, texts, problems."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

ANY_SCALAR = {"type": ["string", "number", "boolean"]}


def wrong(message: str, remedy: str = "") -> PydanticCustomError:
    """A problem of the file, with what to do about it."""
    return PydanticCustomError("wrong", "{message}", {"message": message, "remedy": remedy})


def split_reference(text: str) -> tuple[str, str]:
    """Source and dataset of a reference such as `crm: customers`."""
    source, _, dataset = text.partition(": ")
    return source.strip(), dataset.strip()


def _reference(text: str) -> str:
    source, dataset = split_reference(text)
    if not source or not dataset:
        raise wrong(
            f"'{text}' names no dataset", "Write the source, a colon, a blank and the dataset."
        )
    return f"{source}: {dataset}"


def _source_name(text: str) -> str:
    if ": " in text:
        raise wrong(f"the source name '{text}' holds a colon and a blank", "Choose another name.")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=150, strip_whitespace=True)]


SourceName = Annotated[
    str, StringConstraints(min_length=1, max_length=100), AfterValidator(_source_name)
]


LookupName = Annotated[str, StringConstraints(pattern=r"^[-a-zA-Z0-9_]{1,60}$")]


DatasetReference = Annotated[str, AfterValidator(_reference)]


ScalarText = Annotated[str, WithJsonSchema(ANY_SCALAR)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
