"""The hub in the admin: datasets, replicas, edits set aside, accounts' records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from apps.accounts.models import Level
from apps.accounts.services import give_grant
from apps.audit.models import AuditEvent
from apps.hub.bodies import loaded
from apps.hub.models import HostedDataset, HostedRecord, Mutation, Replica, RowScope
from apps.hub.services import note_progress
from apps.sources.models import Dataset, Field, Source
from tests.hub_world import SCHEMA, Pusher, account, hosted
from tests.people import administrator, person, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return signed_in(administrator())


def page(client: Any, name: str, *args: Any) -> str:
    answer = client.get(reverse(f"admin:hub_{name}", args=args))
    assert answer.status_code == 200
    return answer.content.decode()


FACTS = {"edit_delete": "delete", "tombstone_days": 90, "history_days": 90}


def test_a_dataset_is_hosted_and_known_to_all_other_rooms(client):
    page(client, "hosteddataset_add")
    sent = {"name": "tasks", "key_names": "id", "schema": json.dumps(SCHEMA), "scope_field": ""}
    client.post(reverse("admin:hub_hosteddataset_add"), {**sent, **FACTS})
    assert HostedDataset.objects.get().key == ["id"]
    assert Source.objects.get().connector == "hub"
    assert Dataset.objects.get().fields.count() == len(SCHEMA["properties"])
    assert AuditEvent.objects.filter(action="hosted.created").count() == 1
    assert "tasks" in page(client, "hosteddataset_changelist")


def test_a_schema_that_cannot_be_is_said_on_the_form(client):
    sent = {"name": "tasks", "key_names": "nobody", "schema": json.dumps(SCHEMA), **FACTS}
    answer = client.post(reverse("admin:hub_hosteddataset_add"), sent)
    assert "must name properties" in answer.content.decode()
    assert not HostedDataset.objects.exists()


def test_a_schema_is_changed_and_what_breaks_is_asked_about(client):
    tasks = hosted()
    place = reverse("admin:hub_hosteddataset_change", args=(tasks.pk,))
    page(client, "hosteddataset_change", tasks.pk)
    less = {n: s for n, s in SCHEMA["properties"].items() if n != "owner"}
    schema = {"schema": json.dumps({**SCHEMA, "properties": less})}
    answer = client.post(place, {**FACTS, **schema})
    assert "&#x27;owner&#x27; is gone" in answer.content.decode()
    client.post(place, {**FACTS, **schema, "may_break": "on", "history_days": 10})
    tasks.refresh_from_db()
    assert (tasks.oldest_schema, tasks.history_days) == (2, 10)


def test_replicas_show_their_lag_and_are_revoked(client):
    tasks = hosted()
    one = Pusher(tasks)
    one.push("a", title="x")
    note_progress(one.replica, tasks, pulled=0, schema=1)
    assert "1 writes" in page(client, "replica_changelist")
    page(client, "replica_change", one.replica.pk)
    client.post(reverse("admin:hub_replica_do", args=(one.replica.pk, "revoke")))
    assert Replica.objects.get().revoked_at is not None
    assert "Revoked" in page(client, "replica_changelist")
    assert AuditEvent.objects.filter(action="replica.revoked").exists()


def conflict(tasks: HostedDataset) -> Mutation:
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", price="1.00").revision
    one.push("a", base, price="2.00")
    two.push("a", base, price="3.00")
    return Mutation.objects.get(state="open")


@pytest.mark.parametrize(("action", "price"), [("take", "3.00"), ("keep", "2.00")])
def test_an_edit_that_waits_is_decided(client, action, price):
    waiting = conflict(hosted())
    shown = page(client, "mutation_change", waiting.pk)
    assert "3.00" in shown
    assert "2.00" in shown
    for _ in range(2):  # the second time it is decided already
        client.post(reverse("admin:hub_mutation_do", args=(waiting.pk, action)))
    assert loaded(HostedRecord.objects.get().body)["price"] == price
    waiting.refresh_from_db()
    assert (waiting.state, waiting.decided_by.username) == ("decided", "root")
    assert "Waits for a decision" not in page(client, "mutation_changelist")


def test_personal_values_are_masked(client):
    tasks = hosted()
    Field.objects.filter(dataset__name="tasks", name="price").update(personal_data="financial")
    waiting = conflict(tasks)
    assert "3.00" not in page(client, "mutation_change", waiting.pk)


def test_whose_records_are_whose_is_set(client):
    tasks = hosted(scope_field="owner")
    user = account("ada")
    page(client, "rowscope_add")
    sent = {"hosted": tasks.pk, "account": user.pk, "values_text": "ada, eve"}
    client.post(reverse("admin:hub_rowscope_add"), sent)
    row = RowScope.objects.get()
    assert row.values == ["ada", "eve"]
    assert "ada, eve" in page(client, "rowscope_changelist")
    place = reverse("admin:hub_rowscope_change", args=(row.pk,))
    client.post(place, {"values_text": "", "every": "on"})
    row.refresh_from_db()
    assert (row.values, row.every) == ([], True)


def test_only_what_was_granted_is_seen():
    mine, theirs = hosted("mine"), hosted("theirs")
    looks = ("hub.view_hosteddataset", "hub.view_mutation", "hub.view_replica")
    user = person("looks", *looks, reaches_all=False)
    give_grant(user, Dataset.objects.get(name="mine"), Level.SEE, actor=None)
    client = signed_in(user)
    shown = page(client, "hosteddataset_changelist")
    assert "mine" in shown
    assert "theirs" not in shown
    place = reverse("admin:hub_hosteddataset_change", args=(theirs.pk,))
    assert client.get(place).status_code in (302, 404)
    page(client, "hosteddataset_change", mine.pk)
    waiting = conflict(theirs)
    assert client.get(reverse("admin:hub_mutation_change", args=(waiting.pk,))).status_code == 302
