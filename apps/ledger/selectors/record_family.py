"""One record across all systems: which records are the same, and what became of them.

A record is known by its address, a dataset and a canonical key there. Rules link addresses; rules
that share a dataset chain them, so that a record of five systems is one family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any
from uuid import UUID

from django.db.models import Q

from apps.engine.types_sql import key_text
from apps.ledger.models import Change, Conflict, Link
from apps.ledger.selectors.history import record_changes
from apps.ledger.selectors.inbox import OPEN
from apps.ledger.selectors.keys import key_candidates, key_hash
from apps.ledger.selectors.link_tables import links_named
from apps.ledger.selectors.linked import SegmentLinks
from apps.rules.models import Rule

MOST_ADDRESSES = 40
MOST_CHANGES = 200


@dataclass(frozen=True, slots=True)
class Address:
    """Where one record is: dataset and canonical key text."""

    dataset_id: UUID
    key: str

    @property
    def digest(self) -> str:
        """Stands for the key in addresses of pages: keys may say who somebody is."""
        return key_hash(self.key).hex()


@dataclass(frozen=True, slots=True)
class Membership:
    """How one rule knows the record: both keys, empty where it does not know one."""

    rule: Rule
    left_key: str
    right_key: str
    state: str  # of the link; empty: there is none (any more)


@dataclass(frozen=True, slots=True)
class Family:
    """All addresses of one record, the one that was asked for first."""

    addresses: list[Address]
    memberships: list[Membership]


def parse_keys(text: str) -> list[str]:
    """What a person may mean by a key: canonical, one plain value, or several with commas."""
    found = key_candidates(text)
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1:
        found.append(key_text(parts))
    return list(dict.fromkeys(found))


def find_addresses(rules: Sequence[Rule], text: str) -> list[Address]:
    """The addresses with this key, under these rules: in links, changes, and open conflicts."""
    keys = parse_keys(text)
    by_id = {rule.pk: rule for rule in rules}
    found: dict[Address, None] = {}
    hashes = [key_hash(key) for key in keys]
    links = Link.objects.filter(rule_id__in=list(by_id)).exclude(state=Link.State.GONE)
    waiting = Conflict.objects.filter(rule_id__in=list(by_id), state__in=OPEN)
    for rows, side in product((links, waiting), ("left", "right")):
        for rule_id, key in rows.filter(**{f"{side}_hash__in": hashes}).values_list(
            "rule_id", f"{side}_key"
        )[:MOST_ADDRESSES]:
            found[address_at(by_id[rule_id], side, key)] = None
    for key in keys:
        for change in record_changes(list(by_id), left_key=key, right_key=key, limit=50):
            for side, known in (("left", change.left_key), ("right", change.right_key)):
                if known == key:
                    found[address_at(by_id[change.rule_id], side, key)] = None
    return list(found)[:MOST_ADDRESSES]


def address_of(rules: Sequence[Rule], dataset_id: UUID, digest: str) -> Address | None:
    """The address behind a page's address: the key by its hash, from links, changes, conflicts."""
    try:
        wanted = bytes.fromhex(digest)
    except ValueError:
        return None
    for side in ("left", "right"):
        ids = [rule.pk for rule in rules if _dataset_of(rule, side) == dataset_id]
        for model in (Link, Change, Conflict):
            rows = model._default_manager.filter(rule_id__in=ids, **{f"{side}_hash": wanted})
            key = rows.values_list(f"{side}_key", flat=True).first()
            if key:
                return Address(dataset_id, key)
        for rule_id in ids:
            key = SegmentLinks(rule_id).key_of(side, wanted)
            if key:
                return Address(dataset_id, key)
    return None


def _dataset_of(rule: Rule, side: str) -> UUID:
    dataset_id: UUID = getattr(rule.mapping, f"{side}_id")
    return dataset_id


def address_at(rule: Rule, side: str, key: str) -> Address:
    """Where a rule's record with this key is."""
    return Address(_dataset_of(rule, side), key)


def record_family(rules: Sequence[Rule], start: Address) -> Family:
    """Follow links, and changes of records that are linked no more, from dataset to dataset.

    A rule over one of these datasets that knows nothing of the record is a member, too: it can be
    asked why.
    """
    addresses: dict[Address, None] = {start: None}
    memberships: dict[tuple[UUID, str, str], Membership] = {}
    waiting = [start]
    while waiting and len(addresses) < MOST_ADDRESSES:
        here = waiting.pop(0)
        for side in ("left", "right"):
            for rule in (r for r in rules if _dataset_of(r, side) == here.dataset_id):
                for found in _memberships(rule, side, here.key) or [_unknown(rule, side, here.key)]:
                    memberships[rule.pk, found.left_key, found.right_key] = found
                    for address in _addresses(found):
                        if address not in addresses:
                            addresses[address] = None
                            waiting.append(address)
    return Family(list(addresses), _known_best(memberships.values()))


def _memberships(rule: Rule, side: str, key: str) -> list[Membership]:
    links = links_named(rule.pk, **{f"{side}_key": key})
    found = [Membership(rule, link.left_key, link.right_key, link.state) for link in links[:5]]
    pairs = {(m.left_key, m.right_key) for m in found}
    for change in record_changes([rule.pk], **{f"{side}_key": key}, limit=50):
        pair = (change.left_key, change.right_key)
        if pair not in pairs and key in pair:
            pairs.add(pair)
            found.append(Membership(rule, *pair, ""))
    return found


def _unknown(rule: Rule, side: str, key: str) -> Membership:
    return Membership(rule, *((key, "") if side == "left" else ("", key)), "")


def _addresses(member: Membership) -> Iterable[Address]:
    for side, key in (("left", member.left_key), ("right", member.right_key)):
        if key:
            yield address_at(member.rule, side, key)


def _known_best(memberships: Iterable[Membership]) -> list[Membership]:
    """Without those of which another one of the same rule knows more."""
    every = list(memberships)
    return [one for one in every if not any(_covers(other, one) for other in every)]


def _covers(more: Membership, less: Membership) -> bool:
    if more is less or more.rule.pk != less.rule.pk:
        return False
    left = less.left_key in ("", more.left_key)
    right = less.right_key in ("", more.right_key)
    return left and right and (more.left_key, more.right_key) != (less.left_key, less.right_key)


def record_life(
    family: Family, *, before: datetime | None = None, limit: int = MOST_CHANGES
) -> list[Change]:
    """What every rule planned or wrote about the record, newest first."""
    found: dict[Any, Change] = {}
    for member in family.memberships:
        for change in record_changes(
            [member.rule.pk],
            left_key=member.left_key,
            right_key=member.right_key,
            before=before,
            limit=limit,
        ):
            found[change.pk] = change
    return sorted(found.values(), key=lambda c: (c.planned_at, c.pk), reverse=True)[:limit]


def open_conflicts(family: Family) -> list[Conflict]:
    """The conflicts in which the record waits for a person."""
    wanted = Q(pk__in=())
    for member in family.memberships:
        for side, key in (("left", member.left_key), ("right", member.right_key)):
            if key:
                wanted |= Q(rule_id=member.rule.pk, **{f"{side}_hash": key_hash(key)})
    return list(Conflict.objects.filter(wanted, state__in=OPEN)[:20])
