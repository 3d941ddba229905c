"""Left views: what the right side would hold if the left had its way (decision 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pyarrow as pa

from apps.engine.codec import encode_images
from apps.engine.execution import Runner
from apps.engine.program import LEFT_KEY
from apps.engine.sandbox import Sandbox
from apps.engine.transform import Transformed
from apps.runs.services.programs import lookups_for, transformer

if TYPE_CHECKING:
    from apps.runs.services.context import RunContext

Image = dict[str, str | None]


class LeftViews:
    """Runs left records through the forward program; starts it at first use."""

    def __init__(self, context: RunContext, lookups: dict[str, pa.Table] | None = None) -> None:
        self.context = context
        self._lookups = lookups
        self._program: Runner | Sandbox | None = None

    def close(self) -> None:
        if self._program is not None:
            self._program.__exit__(None, None, None)
            self._program = None

    def run(self, records: pa.RecordBatch) -> Transformed:
        """What the program makes of left records with `left_fields`."""
        if self._program is None:
            if self._lookups is None:
                self._lookups = lookups_for(self.context)
            self._program = transformer(self.context.program, self._lookups)
            self._program.__enter__()
        return self._program.run(records)

    def by_key(self, records: pa.RecordBatch) -> dict[str, Image]:
        """The left view of each record that passes, by left key."""
        done = self.run(records)
        types = self.context.mapped_types
        images = encode_images(done.records.select(list(types)), types)
        keys = done.records.column(LEFT_KEY).to_pylist()
        return {key: orjson.loads(image) for key, image in zip(keys, images, strict=True)}
