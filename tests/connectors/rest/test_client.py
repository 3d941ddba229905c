"""Signing in, waiting, trying again, and what is no answer."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import threading
import time
from typing import Any

import pytest

from apps.connectors.base import StepStatus
from apps.connectors.errors import (
    ConnectionLost,
    DatasetMissing,
    LockstepError,
    PermissionRefused,
    SignInRefused,
    TargetBusy,
    Unreachable,
)
from apps.connectors.outbound import AllowedNetworks, OutboundRefused, routes
from apps.connectors.rest import signing
from apps.connectors.rest.answers import AnswerUnusable
from tests.connectors.rest.conftest import Connect, records
from tests.connectors.rest.server import Api, Asked, Reply

THINGS: dict[str, Any] = {
    "things": {"path": "/things", "key": ["id"], "fields": {"id": "integer"}, "params": {"a": "b"}}
}
ONE = [{"id": 1}]


def good(asked: Asked) -> Reply:
    return Reply(body=ONE)


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({}, "authorization", None),
        (
            {"auth": "basic", "user": "ada", "secret": "pé"},
            "authorization",
            "Basic " + base64.b64encode("ada:pé".encode("latin-1")).decode(),
        ),
        ({"auth": "bearer", "secret": "t0ken"}, "authorization", "Bearer t0ken"),
        ({"auth": "api_key_header", "key_name": "X-Key", "secret": "k"}, "x-key", "k"),
    ],
    ids=["none", "basic", "bearer", "api key"],
)
def test_requests_are_signed_in(
    api: Api, connect: Connect, settings: dict[str, Any], header: str, value: str | None
) -> None:
    api.handle = good
    assert records(connect(THINGS, **settings), "things") == ONE
    assert api.asked[-1].headers.get(header) == value


def test_an_api_key_goes_into_the_query(api: Api, connect: Connect) -> None:
    api.handle = good
    connector = connect(THINGS, auth="api_key_query", key_name="key", secret="a&b c")
    assert records(connector, "things") == ONE
    assert api.asked[-1].params == {"a": "b", "key": "a&b c"}


def test_no_error_tells_the_key(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(400, {"message": "no"})
    connector = connect(THINGS, auth="api_key_query", key_name="key", secret="s3cret")
    with pytest.raises(AnswerUnusable) as caught:
        records(connector, "things")
    assert "s3cret" not in f"{caught.value} {caught.value.remedy} {connector.settings!r}"


def test_a_request_is_signed_by_hmac(api: Api, connect: Connect) -> None:
    api.handle = good
    rules = {
        "algorithm": "sha512",
        "encoding": "base64",
        "header": "X-Sig",
        "prefix": "v1=",
        "message": "{method}\\n{path}\\n{query}\\n{timestamp}\\n{body}",
    }
    connector = connect(
        THINGS, api_wide={"signing": rules}, auth="hmac", secret="k", user="me", key_name="X-Id"
    )
    assert records(connector, "things") == ONE
    headers = api.asked[-1].headers
    message = f"GET\n/things\na=b\n{headers['x-timestamp']}\n".encode()
    digest = hmac.new(b"k", message, hashlib.sha512).digest()
    assert headers["x-sig"] == "v1=" + base64.b64encode(digest).decode()
    assert headers["x-id"] == "me"


class Tokens:
    """A token server: each token is good until `revoke`."""

    def __init__(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = 0
        self.good: set[str] = set()
        monkeypatch.setattr(signing, "_tokens", {})
        api.handle = self.answer

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/token":
            known = base64.b64encode(b"me:s3cret").decode()
            if asked.headers["authorization"] != f"Basic {known}":
                return Reply(401, {"error": "invalid_client"})
            assert asked.data == b"grant_type=client_credentials&scope=read"
            self.given += 1
            self.good = {f"t{self.given}"}
            return Reply(body={"access_token": f"t{self.given}", "expires_in": 3600})
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return Reply(body=ONE) if token in self.good else Reply(401, {"message": "expired"})


def oauth(api: Api, connect: Connect, secret: str = "s3cret", **more: Any) -> Any:  # noqa: S107
    return connect(
        THINGS,
        auth="oauth2_client_credentials",
        user="me",
        secret=secret,
        token_url=f"{api.url}/token",
        scope="read",
        **more,
    )


def test_a_token_is_kept_and_fetched_anew_when_refused(
    api: Api, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(api, monkeypatch)
    for _ in range(3):
        assert records(oauth(api, connect), "things") == ONE
    assert tokens.given == 1
    tokens.good.clear()
    assert records(oauth(api, connect, retries=0), "things") == ONE
    assert tokens.given == 2


def test_a_wrong_client_secret_is_said_so(
    api: Api, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tokens(api, monkeypatch)
    with pytest.raises(SignInRefused, match="invalid_client"):
        records(oauth(api, connect, "wrong"), "things")


def test_retry_after_is_waited_for(api: Api, connect: Connect, waits: list[float]) -> None:
    api.handle = good
    api.on(
        "/things",
        Reply(429, headers={"Retry-After": "7"}),
        Reply(503, headers={"Retry-After": "3"}),
    )
    assert records(connect(THINGS), "things") == ONE
    assert waits == [7, 3]


def test_a_limit_that_lifts_too_late_is_for_later(api: Api, connect: Connect) -> None:
    api.on("/things", Reply(429, {"message": "slow down"}, {"Retry-After": "9000"}))
    with pytest.raises(TargetBusy, match="9,000 seconds"):
        records(connect(THINGS), "things")


def test_a_storm_of_429_ends(api: Api, connect: Connect, waits: list[float]) -> None:
    api.handle = lambda asked: Reply(429)
    with pytest.raises(TargetBusy, match="again and again"):
        records(connect(THINGS, retries=3), "things")
    assert len(waits) == 3


def test_the_limits_of_headers_are_kept(api: Api, connect: Connect, waits: list[float]) -> None:
    reset = str(int(time.time()) + 50)
    api.handle = good
    api.on(
        "/things",
        Reply(
            403,
            {"message": "rate limit"},
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset},
        ),
    )
    assert records(connect(THINGS), "things") == ONE
    assert 40 < sum(waits) <= 51


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_failures_of_the_server_are_tried_again(
    api: Api, connect: Connect, waits: list[float], status: int
) -> None:
    api.handle = good
    api.on("/things", Reply(status), Reply(status))
    assert records(connect(THINGS), "things") == ONE
    assert len(waits) == 2


def test_no_answer_in_time_is_tried_again(api: Api, connect: Connect) -> None:
    over = threading.Event()
    api.on("/things", Reply(body=ONE, hang=over))
    connector = connect(THINGS, timeout=1, retries=0)
    with pytest.raises(ConnectionLost, match="in time"):
        records(connector, "things")
    over.set()


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply(raw=b"<html>", headers={"Content-Type": "text/html"}), AnswerUnusable, "web page"),
        (Reply(raw=b"[1, 2"), AnswerUnusable, "not JSON"),
        (Reply(raw=b"\xff\xfe\x00"), AnswerUnusable, "not JSON"),
        (Reply(raw=b'[{"id": 1, "id": 2}]'), AnswerUnusable, "stands twice"),
        (Reply(body={"data": []}), AnswerUnusable, "finds no list"),
        (
            Reply(301, headers={"Location": "https://other.example/x"}),
            AnswerUnusable,
            "other.example",
        ),
        (Reply(401, {"message": "who?"}), SignInRefused, "who"),
        (Reply(403, {"message": "not you"}), PermissionRefused, "not you"),
        (Reply(404), DatasetMissing, "404"),
        (Reply(418), AnswerUnusable, "418"),
    ],
    ids=lambda value: None if not isinstance(value, str) else value.replace(" ", "-"),
)
def test_what_is_no_answer_is_named(
    api: Api, connect: Connect, reply: Reply, error: type[LockstepError], words: str
) -> None:
    api.on("/things", reply)
    with pytest.raises(error, match=words):
        records(connect(THINGS), "things")


def test_a_small_answer_that_grows_without_end_is_refused(api: Api, connect: Connect) -> None:
    bomb = gzip.compress(b"[" + b" " * (3 << 20) + b"]")
    assert len(bomb) < 10_000
    api.on("/things", Reply(raw=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(AnswerUnusable, match="larger than 1 MiB"):
        records(connect(THINGS, max_answer_mib=1), "things")


def test_nothing_listens(connect: Connect, waits: list[float]) -> None:
    with pytest.raises(Unreachable):
        records(connect(THINGS, url="http://127.0.0.1:1024", retries=1), "things")
    assert len(waits) == 1


def test_the_guard_of_outward_connections_holds(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = routes._Rules(AllowedNetworks.parse(["public"]), frozenset())
    monkeypatch.setattr(routes, "_rules", rules)
    with pytest.raises(OutboundRefused):
        records(connect(THINGS), "things")


def test_etags_spare_what_has_not_changed(api: Api, connect: Connect) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.headers.get("if-none-match") == '"1"':
            return Reply(304)
        return Reply(body=ONE, headers={"ETag": '"1"'})

    api.handle = answer
    tagged = {"things": {**THINGS["things"], "etags": True}}
    connector = connect(tagged)
    assert [records(connector, "things") for _ in range(2)] == [ONE, ONE]
    assert [one.headers.get("if-none-match") for one in api.asked] == [None, '"1"']


def test_a_check_goes_step_by_step(api: Api, connect: Connect) -> None:
    api.handle = good
    steps = list(connect(THINGS).check())
    assert [step.name for step in steps] == ["resolve", "connect", "tls", "read"]
    assert {step.status for step in steps} == {StepStatus.OK}
    api.handle = lambda asked: Reply(401, {"message": "no such token"})
    steps = list(connect(THINGS, auth="bearer", secret="s3cret").check())
    assert (steps[-1].status, steps[-1].name) == (StepStatus.FAILED, "read")
    assert "no such token" in steps[-1].message


def test_bodies_of_errors_are_cut(api: Api, connect: Connect) -> None:
    api.on("/things", Reply(400, raw=json.dumps({"message": "x" * 10_000}).encode()))
    with pytest.raises(AnswerUnusable) as caught:
        records(connect(THINGS), "things")
    assert len(str(caught.value)) < 500
