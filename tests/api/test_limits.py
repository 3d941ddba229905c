"""How often one client may ask, and what it is told."""

from __future__ import annotations

import pytest
from django.test import Client

from apps.core.rate_limits import Allowance, RateLimit
from tests.people import administrator
from tests.programs import program

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _three_a_minute(settings):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "API_REQUESTS": 3}


def test_beyond_its_limit_a_client_is_told_to_wait_and_others_go_on():
    account = administrator()
    hasty, other = program(account), program(account)

    left = [hasty.get("rules")["RateLimit"].split(";")[1] for _ in range(3)]
    assert left == ["r=2", "r=1", "r=0"]
    answer = hasty.post("runs", {"rule": "whatever"})

    assert (answer.status_code, answer.json()["code"]) == (429, "api.throttled")
    assert 1 <= int(answer["Retry-After"]) <= 20
    assert answer["RateLimit-Policy"] == '"api";q=3;w=60'
    assert answer["Content-Type"] == "application/problem+json"
    assert other.get("rules").status_code == 200


def test_what_comes_without_a_valid_token_counts_for_its_address():
    root = program(administrator())
    headers = {"Authorization": "Bearer lks_" + "a" * 46}

    answers = [Client().get("/api/v1/rules", headers=headers) for _ in range(4)]
    answers.append(Client().get("/api/v1/rules"))
    elsewhere = Client(REMOTE_ADDR="198.51.100.7").get("/api/v1/rules", headers=headers)

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert elsewhere.status_code == 401
    assert root.get("rules").status_code == 200


def test_refused_requests_count_as_well():
    reader = program(administrator(), ["rules:read"])

    statuses = [reader.post("runs", {}).status_code for _ in range(4)]

    assert statuses == [403, 403, 403, 429]


def test_waiting_is_never_said_to_be_zero_seconds():
    refused = Allowance(RateLimit("api", 100, 1), allowed=False, remaining=0, wait=0.001)

    assert refused.headers["Retry-After"] == "1"
