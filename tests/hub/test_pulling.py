"""Pages of changes: whole, resumable, within one's scope; and the digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from apps.hub.bodies import scope_name
from apps.hub.errors import SchemaOutdated, TokenExpired
from apps.hub.models import HostedDataset, HostedRecord, Sequence
from apps.hub.pulling import digest, pull, require_schema
from apps.hub.selectors import EVERYTHING, Access
from apps.hub.services import change_schema
from apps.sources.models import Field
from tests.hub_world import SCHEMA, Pusher, hosted

pytestmark = pytest.mark.django_db


def only(*scopes: str) -> Access:
    return Access.to_values(*scopes)


@dataclass
class Copy:
    """What a replica holds, by nothing but what the pages say."""

    hosted: HostedDataset
    access: Access = EVERYTHING
    token: str = ""
    records: dict[str, Any] = field(default_factory=dict)
    got: list[str] = field(default_factory=list)

    def pull(self, limit: int = 100) -> bool:
        """One page; whether there are more."""
        page = orjson.loads(pull(self.hosted, self.access, self.token, limit).rendered())
        if page["reset"]:
            self.records = {}
        for change in page["changes"]:
            self.got.append(change["op"])
            if change["op"] == "put":
                self.records[change["id"]] = change["data"]
            else:
                self.records.pop(change["id"], None)
        self.token = page["next"]
        return page["has_more"]

    def catch_up(self, limit: int = 100) -> dict[str, Any]:
        while self.pull(limit):
            pass
        return self.records

    @property
    def digest(self) -> str:
        texts = [
            f"{key}\n{orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()}"
            for key, data in self.records.items()
        ]
        sums = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:8]) >> 4 for t in texts]
        return f"{sum(sums) % 2**60:015x}"


def truth(tasks: HostedDataset, *scopes: str) -> dict[str, Any]:
    rows = HostedRecord.objects.filter(hosted=tasks, is_deleted=False)
    rows = rows.filter(scope__in=only(*scopes).scopes) if scopes else rows
    return {row.key: orjson.loads(row.body or "") for row in rows}


def within(records: dict[str, Any], access: Access) -> dict[str, Any]:
    return {key: r for key, r in records.items() if access.sees(scope_name(r["owner"]))}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_first_sync_in_pages_holds_what_was_edited_meanwhile(limit):
    tasks = hosted()
    one, copy = Pusher(tasks), Copy(tasks)
    revisions = {key: one.push(key, title=key).revision for key in "bdfh"}
    copy.pull(limit)
    one.push("b", revisions["b"], title="edited behind")
    one.push("f", revisions["f"], is_delete=True)
    one.push("a", title="new behind")
    one.push("z", title="new ahead")
    assert copy.catch_up(limit) == truth(tasks)
    assert set(copy.records) == set("abdhz")


def test_a_deletion_reaches_copies_and_no_new_one():
    tasks = hosted()
    one, copy = Pusher(tasks), Copy(tasks)
    base = one.push("a", title="x").revision
    copy.catch_up()
    one.push("a", base, is_delete=True)
    assert copy.catch_up() == {}
    fresh = Copy(tasks)
    assert fresh.catch_up() == {}
    assert fresh.got == []


def test_nothing_new_is_an_empty_page_from_which_to_go_on():
    tasks = hosted()
    one, copy = Pusher(tasks), Copy(tasks)
    copy.catch_up()
    one.push("a", title="x")
    assert copy.catch_up() == {"a": {"id": "a", "title": "x"}}
    assert copy.got == ["put"]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_records_leave_and_enter_a_scope(limit):
    tasks = hosted(scope_field="owner")
    one = Pusher(tasks)
    ada, every = Copy(tasks, only("ada")), Copy(tasks)
    a = one.push("a", title="x", owner="ada").revision
    one.push("b", title="y", owner="bob")
    c = one.push("c", title="z", owner="ada").revision
    assert set(ada.catch_up(limit)) == {"a", "c"}
    moved = one.push("a", a, owner="bob").revision
    one.push("c", c, owner="bob")
    one.push("c", title="came back", owner="ada")
    assert ada.catch_up(limit) == truth(tasks, "ada")
    assert "leave" in ada.got
    one.push("a", moved, owner="cid")  # from one foreign scope to another
    assert ada.catch_up(limit) == truth(tasks, "ada")
    assert every.catch_up(limit) == truth(tasks)


def test_what_is_not_in_scope_is_not_named():
    tasks = hosted(scope_field="owner")
    one, ada = Pusher(tasks), Copy(tasks, only("ada"))
    base = one.push("secret", title="x", owner="bob").revision
    ada.catch_up()
    one.push("secret", base, is_delete=True)
    one.push("hidden", title="x", owner="bob")
    ada.catch_up()
    assert ada.got == []
    assert Copy(tasks, only()).catch_up() == {}


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("ada",), ("bob",)),
        (("ada",), ("ada", "bob")),
        (("ada", "bob"), ("bob",)),
        (("ada",), None),
        (None, ("ada",)),
        (("ada",), ()),
    ],
)
def test_scopes_that_are_lost_leave_and_those_that_are_gained_arrive(before, after, limit):
    before, after = (EVERYTHING if s is None else only(*s) for s in (before, after))
    tasks = hosted(scope_field="owner")
    one = Pusher(tasks)
    places = {}
    for number, owner in enumerate(("ada", "bob", "cid") * 2):
        places[f"{number}"] = one.push(f"{number}", title="x", owner=owner).revision
    copy = Copy(tasks, before)
    copy.catch_up(limit)
    copy.access = after
    one.push("0", places["0"], owner="bob")
    copy.pull(limit)
    one.push("1", places["1"], title="edited on the way")
    one.push("3", places["3"], owner="cid")
    assert copy.catch_up(limit) == (
        truth(tasks) if after.scopes is None else within(truth(tasks), after)
    )


def test_scopes_may_change_once_more_on_the_way():
    tasks = hosted(scope_field="owner")
    one = Pusher(tasks)
    for number, owner in enumerate(("ada", "bob", "cid") * 3):
        one.push(f"{number}", title="x", owner=owner)
    copy = Copy(tasks, only("ada"))
    copy.catch_up()
    for access in (only("bob"), only("cid"), only("cid", "ada")):
        copy.access = access
        copy.pull(2)
    assert copy.catch_up(2) == truth(tasks, "ada", "cid")


def test_a_token_from_before_what_is_remembered_is_refused():
    tasks = hosted()
    copy = Copy(tasks)
    copy.catch_up()
    Sequence.objects.update(last=10, forgotten=5)
    with pytest.raises(TokenExpired):
        copy.pull()


def test_a_token_that_was_altered_or_is_of_another_dataset_is_refused():
    tasks, others = hosted(), hosted("others")
    copy = Copy(tasks)
    copy.catch_up()
    for token in (copy.token[:-1] + "x", "nonsense", "ä", copy.token + "AAAA"):
        with pytest.raises(TokenExpired):
            pull(tasks, EVERYTHING, token, 1)
    with pytest.raises(TokenExpired):
        pull(others, EVERYTHING, copy.token, 1)


def test_a_change_of_the_schema_that_breaks_ends_tokens_and_old_clients():
    tasks = hosted()
    copy = Copy(tasks)
    copy.catch_up()
    without = {n: s for n, s in SCHEMA["properties"].items() if n != "owner"}
    change_schema(tasks, {**SCHEMA, "properties": without}, may_break=True, actor=None)
    with pytest.raises(TokenExpired):
        copy.pull()
    with pytest.raises(SchemaOutdated):
        require_schema(tasks, 1)
    require_schema(tasks, 2)


def test_the_digest_says_whether_a_copy_is_the_same():
    tasks = hosted(scope_field="owner")
    one = Pusher(tasks)
    one.push("a", title="Größe 😀", owner="ada", price="1.5", stock=2**60)
    one.push("b", title="y", owner="bob")
    for access in (EVERYTHING, only("ada"), only()):
        copy = Copy(tasks, access)
        copy.catch_up()
        said = digest(tasks, access, copy.token)
        assert (said.count, said.digest) == (len(copy.records), copy.digest)
        assert said.is_current
    one.push("c", title="z", owner="ada")
    assert digest(tasks, access, copy.token).is_current is False


def test_a_scope_is_kept_as_a_hash():
    tasks = hosted(scope_field="owner")
    Pusher(tasks).push("a", title="x", owner="ada@example.org")
    assert "ada" not in HostedRecord.objects.get().scope


def test_sealed_records_are_pulled_in_clear():
    tasks = hosted()
    Field.objects.filter(dataset__name="tasks", name="owner").update(personal_data="identity")
    Pusher(tasks).push("a", title="x", owner="Ada")
    assert HostedRecord.objects.get().body is None
    copy = Copy(tasks)
    assert copy.catch_up() == {"a": {"id": "a", "owner": "Ada", "title": "x"}}
    assert digest(tasks, EVERYTHING, "").digest == copy.digest
