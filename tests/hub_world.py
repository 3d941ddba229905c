"""A hub dataset for tests, and replicas that push to it and pull from it without HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from apps.accounts.models import User
from apps.hub.merging import Edit
from apps.hub.models import HostedDataset, Mutation, Replica, RowScope
from apps.hub.selectors import EVERYTHING, Access
from apps.hub.services import NewDataset, Outcome, host_dataset, push
from apps.sources.models import Field

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "maxLength": 100},
        "title": {"type": "string", "maxLength": 40},
        "note": {"type": "string", "x-merge": "text"},
        "done": {"type": "boolean"},
        "stock": {"type": "integer", "x-merge": "counter"},
        "tags": {"type": "array", "items": {"type": "string"}, "x-merge": "set"},
        "price": {"type": "string", "x-type": "decimal(10,2)", "x-merge": "ask"},
        "owner": {"type": "string"},
    },
    "required": ["title"],
}


def hosted(name: str = "tasks", **facts: Any) -> HostedDataset:
    """A new hub dataset."""
    wanted = NewDataset(name, facts.pop("schema", SCHEMA), **facts)
    host_dataset(wanted, actor=None)
    return HostedDataset.objects.get(name=name)


def account(name: str = "app") -> User:
    found = User.objects.filter(username=name).first()
    return found or User.objects.create_user(username=name)


@dataclass
class Pusher:
    """A replica that numbers its edits; it keeps no copy."""

    hosted: HostedDataset
    access: Access = EVERYTHING
    replica: Replica = field(
        default_factory=lambda: Replica.objects.create(account=account(), client_id=uuid4())
    )
    sent: int = 0

    def edit(self, key: str, base: int | None = None, **facts: Any) -> Edit:
        """The next edit; facts as in `Edit`, all others are fields that are set."""
        self.sent += 1
        known = {name: facts.pop(name) for name in KNOWN & facts.keys()}
        known["base"] = known.pop("seen", {})
        return Edit(self.sent, key, base, assigned=facts, **known)

    def push(self, key: str, base: int | None = None, **facts: Any) -> Outcome:
        return push(self.hosted, self.replica, [self.edit(key, base, **facts)], self.access)[0]


KNOWN = frozenset({"increments", "added", "removed", "is_delete", "seen", "stamp"})


def in_use(name: str = "tasks", *, personal: bool = False) -> Mutation:
    """A hub dataset in use: an edit that waits for a person, of a replica whose account sees some.

    Gives that edit; dataset, replica and scope hang on it. personal: the prices are somebody's.
    """
    tasks = hosted(name, scope_field="owner")
    if personal:
        fields = Field.objects.filter(dataset__name=name, name="price")
        assert fields.update(personal_data="financial") == 1
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", price="1.00").revision
    one.push("a", base, price="2.00")
    two.push("a", base, price="3.00")
    RowScope.objects.create(hosted=tasks, account=two.replica.account)
    return Mutation.objects.get(hosted=tasks, state=Mutation.State.OPEN)
