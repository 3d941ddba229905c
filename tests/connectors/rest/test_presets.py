"""Each preset against a server that behaves as the API's public documentation says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import parse_qsl

import pyarrow as pa
import pytest

from apps.connectors.base import ChangeBatch, CursorWindow, Operation, WriteResult
from apps.connectors.rest import RestConnector, RestSettings
from apps.connectors.rest.presets import preset, preset_names
from apps.connectors.rest.settings import Preset
from apps.connectors.testing import (
    ALREADY,
    APPLIED,
    REJECTED,
    do_nothing,
    open_session,
    statuses,
)
from tests.connectors.rest.conftest import records
from tests.connectors.rest.server import Api, Asked, Reply

TOKEN = "t0ken"


def test_every_preset_can_be_chosen() -> None:
    assert get_args(Preset) == ("", *preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_complete_but_for_the_secret(name: str) -> None:
    settings = RestSettings(preset=name, secret=TOKEN)  # type: ignore[arg-type]
    assert settings.api.url.startswith("https://")
    connector = RestConnector(settings)
    for dataset in preset(name).datasets.values():
        assert dataset.key
        assert dataset.fields
        assert dataset.item
    assert connector.capabilities.key_lookup
    assert connector.capabilities.returns_stored


def test_an_admin_adds_to_a_preset_and_replaces_parts() -> None:
    own = "headers: {X-Own: 1x}\ndatasets:\n  mine: {path: /mine}\n"
    api = RestSettings(preset="github", secret=TOKEN, definition=own, url="https://ghe.example/api")  # type: ignore[arg-type]
    assert {"mine", "issues", "repositories"} == set(api.api.datasets)
    assert api.api.headers["X-Own"] == "1x"
    assert "X-GitHub-Api-Version" in api.api.headers
    assert api.api.url == "https://ghe.example/api"


def connected(api: Api, name: str) -> RestConnector:
    return RestConnector(RestSettings(preset=name, url=api.url, secret=TOKEN))  # type: ignore[arg-type]


def write(
    connector: RestConnector,
    name: str,
    operation: Operation,
    key: dict[str, list[Any]],
    before: dict[str, list[Any]] | None,
    after: dict[str, list[Any]] | None,
    returning: tuple[str, ...] = (),
) -> WriteResult:
    batch = ChangeBatch(
        operation,
        pa.table(key),
        pa.table(before) if before else None,
        pa.table(after) if after else None,
    )
    with open_session(connector, connector.describe(name)) as session:
        return session.apply(batch, do_nothing, returning=returning)


def authorised(asked: Asked) -> bool:
    return asked.headers.get("authorization") == f"Bearer {TOKEN}"


class GitHub:
    """Two repositories, issues in pages of two, pull requests among them, a limit of requests."""

    def __init__(self, api: Api) -> None:
        self.url = api.url
        self.issues = {name: [self.issue(n) for n in range(1, 6)] for name in ("one", "two")}
        self.issues["one"][1]["pull_request"] = {"url": "…"}
        api.handle = self.answer

    @staticmethod
    def issue(number: int, **more: Any) -> dict[str, Any]:
        return {
            "id": 1000 + number,
            "number": number,
            "title": f"issue {number}",
            "body": None,
            "state": "open",
            "labels": [{"id": 1, "name": "bug"}],
            "user": {"login": "ada", "id": 7},
            "comments": 0,
            "created_at": f"2024-01-0{number}T00:00:00Z",
            "updated_at": f"2024-02-0{number}T00:00:00Z",
            "closed_at": None,
            **more,
        }

    def answer(self, asked: Asked) -> Reply:
        if not authorised(asked) or asked.headers["x-github-api-version"] != "2022-11-28":
            return Reply(401, {"message": "Bad credentials"})
        if asked.path == "/user/repos":
            owner = {"login": "acme"}
            return Reply(body=[{"owner": owner, "name": name, "id": 1} for name in self.issues])
        _, _, owner_name, repository, _, *number = asked.path.split("/")
        if owner_name != "acme" or repository not in self.issues:
            return Reply(404, {"message": "Not Found"})
        issues = self.issues[repository]
        if asked.method == "POST":
            if not asked.body.get("title"):
                return Reply(422, {"message": "Validation Failed"})
            issues.append(self.issue(len(issues) + 1, **asked.body, labels=[]))
            return Reply(201, issues[-1])
        if number:
            found = next((i for i in issues if i["number"] == int(number[0])), None)
            if found is None:
                return Reply(404, {"message": "Not Found"})
            found.update(asked.body or {})
            return Reply(body=found)
        since = asked.params.get("since", "")
        chosen = [issue for issue in issues if issue["updated_at"] >= since]
        page = int(asked.params.get("page", 1))
        link = f'<{self.url}{asked.path}?page={page + 1}&per_page=100&since={since}>; rel="next"'
        headers = {"Link": link} if chosen[2 * page :] else {}
        return Reply(body=chosen[2 * page - 2 : 2 * page], headers=headers)


def test_github_issues(api: Api) -> None:
    github = GitHub(api)
    connector = connected(api, "github")
    found = records(connector, "issues")
    numbers = [(row["repository"], row["number"]) for row in found]
    assert numbers == [("one", n) for n in (1, 3, 4, 5)] + [("two", n) for n in range(1, 6)]
    assert (found[0]["owner"], found[0]["labels"], found[0]["author"]) == ("acme", ["bug"], "ada")

    window = CursorWindow("updated_at", datetime(2024, 2, 4, tzinfo=UTC))
    assert [row["number"] for row in records(connector, "issues", cursor=window)] == [4, 5, 4, 5]

    inserted = write(
        connector,
        "issues",
        Operation.INSERT,
        {},
        None,
        {"owner": ["acme"] * 2, "repository": ["two"] * 2, "title": ["New", "Newer"]},
    )
    assert statuses(inserted) == [APPLIED, APPLIED]
    assert inserted.keys is not None
    assert inserted.keys.to_pylist() == [
        {"owner": "acme", "repository": "two", "number": n} for n in (6, 7)
    ]
    key = {"owner": ["acme"], "repository": ["two"], "number": [6]}
    closed = write(
        connector, "issues", Operation.UPDATE, key, {"state": ["open"]}, {"state": ["closed"]}
    )
    assert statuses(closed) == [APPLIED]
    assert github.issues["two"][5]["state"] == "closed"


def test_the_limit_of_github_is_waited_for(api: Api, waits: list[float]) -> None:
    GitHub(api)
    limits = {
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(datetime.now(UTC).timestamp()) + 30),
    }
    api.on("/user/repos", Reply(403, {"message": "API rate limit exceeded"}, limits))
    assert len(records(connected(api, "github"), "repositories")) == 2
    assert 20 < sum(waits) <= 31


class Stripe:
    """Customers in pages by their last id; forms; idempotency keys; deleted ones stay as stubs."""

    def __init__(self, api: Api, count: int = 5) -> None:
        self.customers: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        for number in range(count):
            self.add({"name": f"customer {number}", "email": f"c{number}@x.example"})
        api.handle = self.answer

    def add(self, given: dict[str, Any]) -> dict[str, Any]:
        name = f"cus_{len(self.customers):04}"
        self.customers[name] = {
            **dict.fromkeys(("name", "email", "phone", "description", "address", "currency")),
            "id": name,
            "object": "customer",
            "balance": 0,
            "created": 1_700_000_000,
            "delinquent": False,
        }
        self.change(self.customers[name], given)
        return self.customers[name]

    @staticmethod
    def change(customer: dict[str, Any], given: dict[str, Any]) -> None:
        for name, value in given.items():
            place, inner = customer, name.partition("[")
            if inner[1]:
                place = customer["address"] = customer["address"] or {}
            place[inner[2].rstrip("]") or name] = value or None

    def answer(self, asked: Asked) -> Reply:
        if not authorised(asked):
            return Reply(401, {"error": {"message": "Invalid API Key provided"}})
        given = dict(parse_qsl(asked.data.decode(), keep_blank_values=True))
        _, _, _, *name = asked.path.split("/")
        if name:
            return self._one(asked, name[0], given)
        if asked.method == "POST":
            if "@" not in given.get("email", "@"):
                said = {"message": f"Invalid email address: {given['email']}"}
                return Reply(400, {"error": {"type": "invalid_request_error", **said}})
            key = asked.headers["idempotency-key"]
            if key not in self.keys:
                self.keys[key] = self.add(given)["id"]
            return Reply(body=self.customers[self.keys[key]])
        after, wanted = asked.params.get("starting_after", ""), asked.params.get("email")
        rows = [c for c in self.customers.values() if not c.get("deleted") and c["id"] > after]
        rows = [c for c in rows if wanted is None or c["email"] == wanted]
        return Reply(body={"object": "list", "data": rows[:2], "has_more": len(rows) > 2})

    def _one(self, asked: Asked, name: str, given: dict[str, Any]) -> Reply:
        customer = self.customers.get(name)
        if customer is None:
            return Reply(404, {"error": {"message": f"No such customer: '{name}'"}})
        if asked.method == "DELETE":
            customer = self.customers[name] = {"id": name, "object": "customer", "deleted": True}
        elif asked.method == "POST":
            self.change(customer, given)
        return Reply(body=customer)


def test_stripe_customers(api: Api) -> None:
    stripe = Stripe(api)
    connector = connected(api, "stripe")
    found = records(connector, "customers")
    assert [row["id"] for row in found] == [f"cus_{n:04}" for n in range(5)]

    after = {"name": ["Ada", "Bob"], "email": ["ada@x.example", "nonsense"], "city": ["Bonn", None]}
    api.on("/v1/customers", lambda asked: stripe.answer(asked) and Reply(reset=True))
    result = write(connector, "customers", Operation.INSERT, {}, None, after, ("city",))
    assert statuses(result) == [APPLIED, REJECTED]
    assert "nonsense" not in result.exceptions[1].message
    assert result.keys is not None
    assert result.stored is not None
    assert result.keys.to_pylist() == [{"id": "cus_0005"}, {"id": None}]
    assert result.stored.to_pylist() == [{"city": "Bonn"}, {"city": None}]
    assert len(stripe.customers) == 6

    changed = write(
        connector,
        "customers",
        Operation.UPDATE,
        {"id": ["cus_0005"]},
        {"name": ["Ada"]},
        {"name": [None]},
    )
    assert statuses(changed) == [APPLIED]
    assert stripe.customers["cus_0005"]["name"] is None

    delete = (Operation.DELETE, {"id": ["cus_0005"]}, {"email": ["ada@x.example"]}, None)
    assert statuses(write(connector, "customers", *delete)) == [APPLIED]
    assert statuses(write(connector, "customers", *delete)) == [ALREADY]
    assert len(records(connector, "customers")) == 5


class HubSpot:
    """Contacts that tell the properties asked for only; an address that is taken is a conflict."""

    DEFAULT = ("email", "firstname", "lastname", "createdate", "lastmodifieddate")

    def __init__(self, api: Api, count: int = 5) -> None:
        self.contacts: dict[str, dict[str, Any]] = {}
        for number in range(count):
            self.add({"email": f"c{number}@x.example", "jobtitle": "tester"})
        api.handle = self.answer

    def add(self, properties: dict[str, Any]) -> str:
        name = str(len(self.contacts) + 101)
        moment = "2024-01-01T00:00:00.000Z"
        self.contacts[name] = {"createdate": moment, "lastmodifieddate": moment, **properties}
        return name

    def told(self, name: str, asked: Asked) -> dict[str, Any]:
        wanted = asked.params.get("properties", ",".join(self.DEFAULT)).split(",")
        properties = {key: self.contacts[name].get(key) for key in wanted}
        return {"id": name, "properties": properties, "archived": False}

    def answer(self, asked: Asked) -> Reply:
        if not authorised(asked):
            return Reply(
                401, {"status": "error", "message": "Authentication credentials not found"}
            )
        _, _, _, _, _, *name = asked.path.split("/")
        if name:
            return self._one(asked, name[0])
        if asked.method == "POST":
            given = asked.body["properties"]
            taken = {contact.get("email") for contact in self.contacts.values()}
            if given.get("email") in taken:
                return Reply(409, {"message": "Contact already exists. Existing ID: 101"})
            return Reply(201, self.told(self.add(given), asked))
        names = [name for name in self.contacts if name > asked.params.get("after", "")]
        paging = {"paging": {"next": {"after": names[1], "link": "…"}}} if len(names) > 2 else {}
        return Reply(body={"results": [self.told(name, asked) for name in names[:2]], **paging})

    def _one(self, asked: Asked, name: str) -> Reply:
        if name not in self.contacts:
            return Reply(404, {"message": "resource not found"})
        if asked.method == "DELETE":
            del self.contacts[name]
            return Reply(204)
        self.contacts[name].update(asked.body["properties"] if asked.body else {})
        return Reply(body=self.told(name, asked))


def test_hubspot_contacts(api: Api) -> None:
    hubspot = HubSpot(api)
    connector = connected(api, "hubspot")
    found = records(connector, "contacts")
    assert [row["id"] for row in found] == ["101", "102", "103", "104", "105"]
    assert {row["jobtitle"] for row in found} == {"tester"}

    after = {"email": ["ada@x.example", "c1@x.example"], "jobtitle": ["author"] * 2}
    result = write(connector, "contacts", Operation.INSERT, {}, None, after, ("jobtitle",))
    assert statuses(result) == [APPLIED, REJECTED]
    assert result.exceptions[1].code == "record.duplicate"
    assert result.keys is not None
    assert result.stored is not None
    assert result.keys.to_pylist() == [{"id": "106"}, {"id": None}]
    assert result.stored.to_pylist()[0] == {"jobtitle": "author"}

    change = ({"id": ["106"]}, {"jobtitle": ["author"]}, {"jobtitle": ["editor"]}, ("jobtitle",))
    result = write(connector, "contacts", Operation.UPDATE, *change)
    assert statuses(result) == [APPLIED]
    assert result.stored is not None
    assert result.stored.to_pylist() == [{"jobtitle": "editor"}]

    delete = (Operation.DELETE, {"id": ["106"]}, {"email": ["ada@x.example"]}, None)
    assert statuses(write(connector, "contacts", *delete)) == [APPLIED]
    assert "106" not in hubspot.contacts
