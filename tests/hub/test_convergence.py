"""Replicas converge, whatever the network and their clocks do to them; nothing is done twice.

The replicas are the reference client of docs/clients/python, on a network that loses requests and
answers, delivers twice, and late.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apps.api.serializers.hub import HubPush
from apps.api.views.hub import _outcome
from apps.engine.spec import EditDelete
from apps.hub.bodies import dumped, loaded, scope_name
from apps.hub.errors import OutOfOrder, TokenExpired
from apps.hub.models import HostedDataset, HostedRecord, Mutation, Revision, Sequence
from apps.hub.pulling import digest, pull
from apps.hub.selectors import EVERYTHING, Access
from apps.hub.services import push, replica_of
from apps.hub.services.housekeeping import forget_deletions
from config.environment import BASE_DIR
from tests.hub_world import account, hosted

pytestmark = pytest.mark.django_db

CLIENT = BASE_DIR / "docs" / "clients" / "python" / "lockstep_hub.py"
DAY = 24 * 3600
numbers = count(1)


def client_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("lockstep_hub", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["lockstep_hub"] = module
    spec.loader.exec_module(module)
    return module


lockstep_hub = client_module(CLIENT)


@dataclass
class Network:
    """Carries requests to the services, as far as `faults` let it."""

    hosted: HostedDataset
    access: Access = EVERYTHING
    faults: list[str] = field(default_factory=list)
    late: list[Callable[[], Any]] = field(default_factory=list)

    def get(self, place: str, query: dict[str, Any]) -> Any:
        if place == "digest":
            found = digest(self.hosted, self.access, query["since"])
            return {
                "count": found.count,
                "digest": found.digest,
                "up_to_date": found.is_current,
            }
        return self._carried(lambda: self._pulled(query))

    def post(self, place: str, body: dict[str, Any]) -> Any:
        text = dumped(body)
        return self._carried(lambda: self._pushed(text))

    def _carried(self, act: Callable[[], Any]) -> Any:
        fault = self.faults.pop() if self.faults else ""
        if fault == "lost":
            raise OSError("the request was lost")
        if fault == "late":  # it arrives after later ones
            self.late.append(act)
            raise OSError("the request is on its way")
        answer = act()
        if fault == "twice":
            act()
        if fault == "unanswered":  # done and committed, and nobody is told
            raise OSError("the answer was lost")
        return answer

    def deliver(self) -> None:
        """What was on its way arrives, in another order; nobody waits for the answers."""
        while self.late:
            with contextlib.suppress(lockstep_hub.Problem):
                self.late.pop()()

    def _pulled(self, query: dict[str, Any]) -> Any:
        try:
            page = pull(self.hosted, self.access, query["since"] or "", 3)
        except TokenExpired as error:
            raise lockstep_hub.Problem(410, {"code": error.code}) from None
        return lockstep_hub.loaded(page.rendered())

    def _pushed(self, text: str) -> Any:
        sent = HubPush.model_validate(loaded(text))
        replica = replica_of(account(), sent.replica)
        edits = [mutation.edit() for mutation in sent.mutations]
        try:
            outcomes = push(self.hosted, replica, edits, self.access)
        except OutOfOrder as error:
            raise lockstep_hub.Problem(409, {"code": error.code}) from None
        return lockstep_hub.loaded(dumped({"outcomes": [_outcome(one) for one in outcomes]}))


@dataclass
class World:
    """Replicas of one dataset, and what they have counted."""

    hosted: HostedDataset
    copies: list[Any]
    networks: list[Network]
    counted: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, skews: list[int], **facts: Any) -> World:
        hub = hosted(f"tasks {next(numbers)}", **facts)
        networks = [Network(hub) for _ in skews]
        copies = [
            lockstep_hub.Copy(":memory:", network, clock=lambda skew=skew: 1.8e9 + skew)
            for network, skew in zip(networks, skews, strict=True)
        ]
        return cls(hub, copies, networks)

    def quiet(self) -> None:
        """The network is good again, and all sync until nothing is new."""
        for network in self.networks:
            network.faults.clear()
            network.deliver()
        for _ in range(2):
            for copy in self.copies:
                copy.sync()

    def truth(self) -> dict[str, Any]:
        rows = HostedRecord.objects.filter(hosted=self.hosted, is_deleted=False)
        return {row.key: loaded(row.body) for row in rows}

    def check(self) -> None:
        truth = self.truth()
        for copy in self.copies:
            assert {key: copy.get(key) for key in copy.ids()} == truth
            assert copy.is_same() is True


KEYS = st.sampled_from(["a", "b", "c"])
EDITS = st.one_of(
    st.fixed_dictionaries({"set": st.fixed_dictionaries({"title": st.sampled_from("xyz")})}),
    st.fixed_dictionaries(
        {"set": st.fixed_dictionaries({"note": st.sampled_from(["", "1\n", "2\n"])})}
    ),
    st.fixed_dictionaries({"set": st.fixed_dictionaries({"price": st.sampled_from(["1", "2"])})}),
    st.fixed_dictionaries({"increment": st.fixed_dictionaries({"stock": st.integers(-3, 3)})}),
    st.fixed_dictionaries(
        {"add": st.fixed_dictionaries({"tags": st.lists(st.sampled_from("pqr"), max_size=2)})}
    ),
    st.fixed_dictionaries(
        {"remove": st.fixed_dictionaries({"tags": st.lists(st.sampled_from("pqr"), max_size=2)})}
    ),
    st.just({"delete": True}),
)
FAULTS = st.lists(st.sampled_from(["", "lost", "unanswered", "twice", "late"]), max_size=3)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), KEYS, EDITS, st.sampled_from(["", "push", "pull"]), FAULTS),
    min_size=4,
    max_size=16,
)
SKEWS = st.lists(st.sampled_from([0, 1, -DAY, DAY]), min_size=3, max_size=3)

quick = settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def play(world: World, steps: Any) -> None:
    for who, key, edit, act, faults in steps:
        copy, network = world.copies[who], world.networks[who]
        if copy.get(key) is None and "set" in edit:
            edit = {"set": {"title": "new", **edit["set"]}}
        if copy.get(key) is not None or "set" in edit:
            copy.edit(key, **edit)
        network.faults[:] = faults
        with contextlib.suppress(OSError, lockstep_hub.Problem):
            getattr(copy, act)() if act else None
        network.faults.clear()
        if len(faults) == 2:
            network.deliver()


@quick
@given(skews=SKEWS, steps=STEPS, policy=st.sampled_from(["delete", "edit", "ask"]))
def test_replicas_converge_although_messages_are_lost_repeated_and_reordered(skews, steps, policy):
    world = World.of(skews, edit_delete=EditDelete(policy))
    play(world, steps)
    world.quiet()
    world.check()


@quick
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 5), FAULTS), max_size=20))
def test_every_difference_is_counted_once(steps):
    world = World.of([0, DAY, -DAY])
    world.copies[0].edit("a", set={"title": "x", "stock": 0})
    world.quiet()
    for who, delta, faults in steps:
        world.copies[who].edit("a", increment={"stock": delta})
        world.networks[who].faults[:] = faults
        try:
            world.copies[who].push()
            world.copies[who].pull()
        except (OSError, lockstep_hub.Problem):
            pass
    world.quiet()
    world.check()
    assert world.truth()["a"]["stock"] == sum(delta for _, delta, _ in steps)


SCOPES = st.sets(st.sampled_from("xyz"))
MOVES = st.lists(
    st.tuples(
        KEYS,
        st.sampled_from(["x", "y", "z", None]),  # None: the record is deleted
        st.booleans(),  # whether the watcher pulls a page
        st.one_of(st.none(), st.none(), st.none(), SCOPES),  # what the watcher sees from now on
    ),
    min_size=5,
    max_size=30,
)


@quick
@given(moves=MOVES, seen=SCOPES)
def test_replicas_hold_their_scope_and_nothing_else_however_it_changes(moves, seen):
    """The title is the scope here: edits move records between scopes."""
    world = World.of([0], scope_field="title")
    network = Network(world.hosted, Access.to_values(*seen))
    watcher = lockstep_hub.Copy(":memory:", network)
    for key, title, does_pull, scopes in moves:
        if title is None:
            world.copies[0].delete(key)
        else:
            world.copies[0].edit(key, set={"title": title})
        world.copies[0].sync()
        if scopes is not None:
            network.access = Access.to_values(*scopes)
        if does_pull:
            watcher.pull()
    watcher.sync()
    inside = {k: r for k, r in world.truth().items() if network.access.sees(scope_name(r["title"]))}
    assert {key: watcher.get(key) for key in watcher.ids()} == inside
    assert watcher.is_same() is True


@quick
@given(steps=STEPS)
def test_no_acknowledged_value_is_lost(steps):
    """What a replica has set is there, was overwritten knowingly, or lies aside."""
    world = World.of([0, 0, 0])
    sent: list[str] = []
    for number, (who, key, _, act, faults) in enumerate(steps):
        world.copies[who].edit(key, set={"title": f"value {number}"})
        sent.append(f"value {number}")
        world.networks[who].faults[:] = faults
        with contextlib.suppress(OSError, lockstep_hub.Problem):
            getattr(world.copies[who], act)() if act else None
        world.networks[who].faults.clear()
    world.quiet()
    world.check()
    kept = list(Mutation.objects.filter(hosted=world.hosted).values_list("kept", flat=True))
    kept += Revision.objects.filter(hosted=world.hosted).values_list("before", flat=True)
    kept += [orjson.dumps(record).decode() for record in world.truth().values()]
    assert [value for value in sent if not any(f'"{value}"' in (text or "") for text in kept)] == []


@quick
@given(steps=STEPS)
def test_forgotten_deletions_bring_nothing_back(steps):
    world = World.of([0, 0, 0])
    away, *others = world.copies
    away.edit("a", set={"title": "x"})
    world.quiet()
    away.edit("a", increment={"stock": 1})  # made offline, sent after all was forgotten
    for copy in others:
        copy.delete("a")
        copy.sync()
    play(world, [step for step in steps if step[0] != 0 and step[1] != "a"])
    HostedRecord.objects.filter(hosted=world.hosted, is_deleted=True).update(
        changed_at="2020-01-01T00:00:00Z"
    )
    forget_deletions(world.hosted)
    assert Sequence.objects.get(hosted=world.hosted).forgotten
    world.quiet()
    world.check()
    assert "a" not in world.truth()
