"""Plan both ways over many records of twelve fields and report what it took (run as a script).

Every hundredth record is edited on the left, another hundredth on the right, every thousandth on
both sides. Arguments: a directory for spill files, the number of records a side, the memory limit.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apps.engine.codec import encode_images, image_hashes
from apps.engine.execution import Runner
from apps.engine.reconcile import Reconciler, compile_two_way
from apps.engine.spec import RuleSpec, TwoWaySpec
from tests.engine.specs import dataset, mapped
from tests.memory import peak_mib

STEP = 50_000
TYPES = {
    "id": "integer", "s0": "text(40)", "s1": "text(40)", "s2": "text(40)", "s3": "text(40)",
    "j": "integer", "d": "decimal(12,2)", "f": "float", "ts": "timestamp", "tz": "timestamptz",
    "dt": "date", "b": "boolean",
}  # fmt: skip
SIDE = dataset("s", **TYPES)
NEUTRAL = {field.name: field.neutral_type for field in SIDE.fields}
MAPPING = mapped(SIDE, SIDE, *TYPES)
RULE = RuleSpec(direction="two_way", two_way=TwoWaySpec())
SCHEMA = pa.schema([(name, kind.arrow) for name, kind in NEUTRAL.items()])


def records(start: int, edited: tuple[int, ...] = ()) -> pa.RecordBatch:
    """Records from a number on; those whose number ends so (of a thousand) have another `j`."""
    number = pa.array(range(start, start + STEP), pa.int64())
    text = pc.binary_join_element_wise(
        pa.array(["value number"] * STEP), number.cast(pa.string()), " "
    )
    ending = pc.subtract(number, pc.multiply(pc.divide(number, 1000), 1000))
    changed = pc.is_in(ending, pa.array(edited, pa.int64()))
    columns = {
        "id": number,
        **{f"s{place}": text for place in range(4)},
        "j": pc.if_else(changed, pc.add(number, len(edited)), number),
        "d": number.cast(pa.decimal128(20, 0)).cast(pa.decimal128(12, 2)),
        "f": pc.multiply(number.cast(pa.float64()), 1.1),
        "ts": number.cast(pa.timestamp("us")),
        "tz": number.cast(pa.timestamp("us", tz="UTC")),
        "dt": pc.bit_wise_and(number, 8191).cast(pa.int32()).cast(pa.date32()),
        "b": pc.equal(pc.bit_wise_and(number, 1), 0),
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


LEFT_EDITS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
RIGHT_EDITS = (9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)


def keys(number: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('["', number.cast(pa.string()), '"]', "")


def links(start: int) -> pa.Table:
    table = pa.Table.from_batches([records(start)])
    hashes, key = pa.array(image_hashes(table, NEUTRAL)), keys(table["id"])
    state = pa.array(["live"] * STEP)
    return pa.table(
        [key, key, hashes, hashes, state],
        names=["left_key", "right_key", "left_image", "right_image", "state"],
    )


def bases(needed: pa.Table) -> pa.Table:
    """Images of the records before any edit."""
    number = pc.utf8_slice_codeunits(needed["left_key"], 2, -2).cast(pa.int64())
    rows = []
    for start in range(0, max(number.to_pylist()) + 1, STEP):
        table = pa.Table.from_batches([records(start)])
        wanted = number.filter(
            pc.and_(pc.greater_equal(number, start), pc.less(number, start + STEP))
        )
        taken = table.take(pc.subtract(wanted, start))
        images = pa.array(encode_images(taken, NEUTRAL))
        rows.append(pa.table([keys(taken["id"]), images], names=["left_key", "left"]))
    found = pa.concat_tables(rows)
    empty = pa.array([""] * found.num_rows)
    return found.append_column("right_key", found["left_key"]).append_column("right", empty)


def main(spill: Path, count: int, memory_mb: int) -> dict[str, float]:
    report: dict[str, float] = {}
    programs = compile_two_way(MAPPING, RULE)
    with (
        Runner(programs.forward) as forward,
        Runner(programs.backward) as backward,
        Reconciler(
            MAPPING, RULE, complete=True, forward=forward.run, backward=backward.run,
            memory_limit_mb=memory_mb, spill_directory=spill, now=datetime.now(UTC),
        ) as plan,
    ):  # fmt: skip
        views = transform = 0.0
        start = time.perf_counter()
        for first in range(0, count, STEP):
            moment = time.perf_counter()
            batch = records(first, LEFT_EDITS)
            views += time.perf_counter() - moment
            moment = time.perf_counter()
            outcome = forward.run(batch).records
            transform += time.perf_counter() - moment
            plan.add_left(outcome)
            plan.add_right(records(first, RIGHT_EDITS))
            plan.add_links(links(first))
        report["collect_seconds"] = time.perf_counter() - start
        report["of_which_forward_seconds"] = transform
        start = time.perf_counter()
        needed = list(plan.bases_needed())
        report["judge_links_seconds"] = time.perf_counter() - start
        for table in needed:
            plan.add_bases(bases(table))
        report["bases"] = sum(table.num_rows for table in needed)
        start = time.perf_counter()
        summary = plan.plan()
        report["plan_seconds"] = time.perf_counter() - start
        report |= {
            "left_updates": summary.left.updates,
            "right_updates": summary.right.updates,
            "conflicts": summary.conflicts.get("fields", 0),
            "unchanged": summary.unchanged,
        }
        start = time.perf_counter()
        report["changes"] = sum(table.num_rows for table in plan.changes())
        report["hand_out_seconds"] = time.perf_counter() - start
    report["max_rss_mb"] = peak_mib()
    return report


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
