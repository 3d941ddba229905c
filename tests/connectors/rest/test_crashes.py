"""Workers that die around a request: whoever takes over finds out what it did."""

from __future__ import annotations

import pytest

from apps.connectors.rest.answers import Answer
from apps.connectors.rest.client import Call, RestClient
from apps.ledger.models import Conflict
from apps.rules.models import Rule
from apps.runs.models import RunStatus
from apps.runs.services import request_run, work_until_finished
from tests.connectors.rest.example import Example
from tests.invariants.crashes import Crash, forget_leases
from tests.platforms import lines


def die_around(patch: pytest.MonkeyPatch, method: str, when: str) -> None:
    """The process is gone just before, or just after, a request of this method is sent."""
    real = RestClient.send

    def send(self: RestClient, call: Call) -> Answer:
        if call.method != method:
            return real(self, call)
        if when == "after":
            real(self, call)
        raise Crash

    patch.setattr(RestClient, "send", send)


def taken_over(example: Example, method: str, when: str) -> None:
    run = request_run(Rule.objects.get(), actor=None)
    with pytest.MonkeyPatch.context() as patch:
        die_around(patch, method, when)
        with pytest.raises(Crash):
            work_until_finished(run)
    forget_leases()
    run = work_until_finished(run)
    assert run.status == RunStatus.SUCCEEDED, lines(run)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_create_of_a_lost_worker_is_made_once(example: Example, when: str) -> None:
    taken_over(example, "POST", when)
    assert example.office() == example.shop_rows()
    assert len(example.shop.rows) == 4
    example.run()
    assert len(example.shop.rows) == 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_a_lost_worker_is_made_once(example: Example, method: str, when: str) -> None:
    example.run()
    if method == "PATCH":
        example.sql("UPDATE clients SET town = 'Ulm' WHERE mail = 'ada@x.example'")
    else:
        example.sql("DELETE FROM clients WHERE mail = 'ada@x.example'")
    expected = example.office()
    taken_over(example, method, when)
    assert example.office() == example.shop_rows() == expected
    assert not Conflict.objects.exists()
