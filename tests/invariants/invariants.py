"""What must hold when a history has come to its end, and nobody edits any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.invariants.journal import tokens
from tests.invariants.mini_ledger import Link
from tests.invariants.plays import Play, Scene, owner
from tests.invariants.rules_at_work import RuleAtWork
from tests.invariants.setups import HIDDEN, Record

Records = Mapping[str, Record]


def check_ending(scene: Scene, plays: Sequence[Play]) -> None:
    """Convergence, no echo, nothing lost, and every delta counted once."""
    sides = [platform.records() for platform in scene.platforms]
    for play in plays:
        for number in range(len(scene.rules)):
            if not play.work[number].is_empty:
                play.failures.append(f"rule {number} does not come to rest: {play.work[number]}")
    for number, (left, right, _, _) in enumerate(scene.setup.rules):
        _check_equal(scene, plays, number, sides[left], sides[right])
    for play in plays:
        _check_kept(scene, play, sides)


def _check_equal(
    scene: Scene, plays: Sequence[Play], number: int, lefts: Records, rights: Records
) -> None:
    """Both sides hold the same records, but where a person decides or the policy lets them be."""
    rule = scene.rules[number]
    views = rule.views(list(lefts.values()))
    for play in plays:
        ledger = play.ledgers[number]
        asked = {key for c in ledger.conflicts for key in (c["left_key"], c["right_key"])}
        held = {key for link in ledger.links if link.state != "live" for key in link.keys}
        held |= {key for kept in ledger.changes if kept.change.cause == "undone"
                 for key in (kept.change.left_key, kept.change.right_key)}  # fmt: skip
        linked = {link.left_key: link for link in ledger.links}
        keys = {key for key in views.keys() | rights.keys() if owner(key) == play.number}
        for key in keys - asked - held:
            there = key in lefts
            if not _agree(scene, rule, there, views.get(key), rights.get(key), linked.get(key)):
                play.failures.append(
                    f"{key} differs by rule {number}: {views.get(key)} {rights.get(key)}"
                )


def _agree(
    scene: Scene,
    rule: RuleAtWork,
    is_there: bool,
    view: Record | None,
    right: Record | None,
    link: Link | None,
) -> bool:
    if view is None and is_there:  # the filter leaves it out
        return True
    if rule.rule.filter and right is not None and right["b"] == HIDDEN:
        return True  # on the left the filter would leave it out: left alone
    if view is None or right is None:
        two_way = rule.rule.two_way
        assert two_way is not None
        policy = two_way.on_right_delete if right is None else rule.rule.on_delete
        return link is not None and policy.value in ("ignore", "mark")
    return all(scene.setup.same(name, view[name], right[name]) for name in view)


def _check_kept(scene: Scene, play: Play, sides: Sequence[Records]) -> None:
    """Every text is on its side, or in the image before a change that was tried there."""
    for platform, records in enumerate(sides):
        overwritten = _overwritten(scene, play, platform)
        for token in play.journal.missing(platform, dict(records)):
            if token not in overwritten:
                play.failures.append(f"{token} of platform {platform} is lost")
    _check_counted(scene, play, sides)


def _overwritten(scene: Scene, play: Play, platform: int) -> set[str]:
    """The texts in images before changes that were written to a platform, or tried."""
    found: set[str] = set()
    for number, (left, right, _, _) in enumerate(scene.setup.rules):
        for kept in play.ledgers[number].changes:
            if (left if kept.change.side == "left" else right) == platform:
                found |= tokens(kept.images()[0])
    return found


def _check_counted(scene: Scene, play: Play, sides: Sequence[Records]) -> None:
    """A counter is the sum of what everybody added, where nobody overruled it."""
    if play.was_undone or play.was_mistaken or not _all_count(scene):
        return
    if any(ledger.shown for ledger in play.ledgers):
        return
    for key, sum_ in play.journal.counted.items():
        if play.journal.lives[key] > 1:
            continue
        for records in sides:
            if key in records and records[key]["n"] != str(sum_):
                play.failures.append(f"{key} counts {records[key]['n']}, not {sum_}")


def _all_count(scene: Scene) -> bool:
    for _, _, _, rule in scene.setup.rules:
        assert rule.two_way is not None
        if rule.two_way.policy_of("n").policy.value != "counter" or rule.filter:
            return False
    return True
