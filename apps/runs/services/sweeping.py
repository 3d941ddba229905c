"""The key sweep: what a cursor cannot see.

A cursor shows neither deleted records nor records that were committed behind it. The sweep reads
just the left fields that key and filter need, and compares their keys with the rule's links.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import pyarrow as pa

from apps.connectors.errors import EmptySource
from apps.engine.codec import encode_keys
from apps.engine.spec import MappingSpec, RuleSpec
from apps.engine.transform import compile_transform
from apps.ledger.selectors import has_links, link_batches
from apps.runs.services.context import RunContext
from apps.runs.services.leasing import Lease
from apps.runs.services.programs import transformer
from apps.runs.services.reading import SideReader
from apps.runs.services.rejecting import left_key_of


@dataclass(frozen=True, slots=True)
class Absent:
    """Links whose left record is no longer there."""

    left_keys: Sequence[str]
    right_keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Swept:
    """seen: left records; absent: linked but gone; unlinked: there but not linked (left keys).

    held_back: why nothing counts as absent, if there is a reason.
    """

    seen: int
    absent: Absent
    unlinked: list[str]
    held_back: str = ""


def sweep(context: RunContext, lookups: dict[str, pa.Table], lease: Lease) -> Swept:
    """Compare the keys of all left records with the links. Raises EmptySource."""
    mapping, rule = reduced(context.mapping, context.rule)
    program = compile_transform(mapping, rule, lookups=set(lookups))
    fields = program.left_fields
    present: set[str] = set()
    known: set[str] = set()
    nameless = 0
    with ExitStack() as stack:
        sandbox = stack.enter_context(transformer(program, lookups))
        for batch in stack.enter_context(closing(context.left_reader.everything(fields))):
            lease.check()
            done = sandbox.run(batch.records)
            present.update(done.records.column("__left_key").to_pylist())
            known.update(done.left_out.column("__left_key").to_pylist())
            known.update(item.left_key for item in done.rejected if item.left_key)
            nameless += sum(not item.left_key for item in done.rejected)
            keys = [left_key_of(item, context) for item in batch.rejected]
            known.update(key for key in keys if key)
            nameless += keys.count("")
    _refuse_empty(context, len(present) + len(known) + nameless, context.left.name)
    found = _compare(context, present, known)
    if not nameless:
        return found
    reason = f"the key sweep met {nameless} record(s) whose key is unknown"
    return replace(found, absent=Absent((), ()), held_back=reason)


def _compare(context: RunContext, present: set[str], known: set[str]) -> Swept:
    left_gone: list[str] = []
    right_gone: list[str] = []
    unlinked = set(present)
    for links in link_batches(context.run.rule_id):
        lefts, rights = (links.column(n).to_pylist() for n in ("left_key", "right_key"))
        unlinked.difference_update(lefts)
        for left, right in zip(lefts, rights, strict=True):
            if left not in present and left not in known:
                left_gone.append(left)
                right_gone.append(right)
    seen = len(present) + len(known)
    return Swept(seen, Absent(left_gone, right_gone), sorted(unlinked))


def _refuse_empty(context: RunContext, seen: int, name: str) -> None:
    if seen == 0 and context.rule.guards.refuse_empty_source and has_links(context.run.rule_id):
        raise EmptySource("the source returned nothing", where=name)


def reduced(mapping: MappingSpec, rule: RuleSpec) -> tuple[MappingSpec, RuleSpec]:
    """The same mapping and rule with nothing but keys and filter."""
    keys = tuple(field for field in mapping.fields if field.right in mapping.key)
    return (
        mapping.model_copy(update={"fields": keys}),
        rule.model_copy(update={"checks": ()}),
    )


@dataclass(frozen=True, slots=True)
class SweptBoth:
    """What the keys of both sides say.

    suspicious: (left key, right key) of records that are on one side only, linked or not; a key
    that is not known is empty. nameless: records that could not be read.
    """

    left: int
    right: int
    suspicious: set[tuple[str, str]]
    nameless: int

    @property
    def summary(self) -> str:
        return (
            f"Key sweep: {self.left} left and {self.right} right keys, "
            f"{len(self.suspicious)} record(s) on one side only"
        )


def sweep_both(context: RunContext, lease: Lease) -> SweptBoth:
    """Compare all keys of both sides with the links. Raises EmptySource."""
    left, left_nameless = _all_keys(context.left_reader, lease)
    right, right_nameless = _all_keys(context.right_reader, lease)
    _refuse_empty(context, len(left), context.left.name)
    _refuse_empty(context, len(right), context.right.name)
    suspicious: set[tuple[str, str]] = set()
    new_left, new_right = set(left), set(right)
    for links in link_batches(context.run.rule_id):
        pairs = zip(*(links.column(n).to_pylist() for n in ("left_key", "right_key")), strict=True)
        for pair in pairs:
            new_left.discard(pair[0])
            new_right.discard(pair[1])
            if pair[0] not in left or pair[1] not in right:
                suspicious.add(pair)
    suspicious |= {(key, "") for key in new_left} | {("", key) for key in new_right}
    return SweptBoth(len(left), len(right), suspicious, left_nameless + right_nameless)


def _all_keys(reader: SideReader, lease: Lease) -> tuple[set[str], int]:
    keys: set[str] = set()
    nameless = 0
    with closing(reader.everything(reader.key)) as batches:
        for batch in batches:
            lease.check()
            keys.update(encode_keys(pa.Table.from_batches([batch.records]), reader.key_types))
            nameless += len(batch.rejected)
    return keys, nameless
