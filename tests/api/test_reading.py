"""Reading: lists by key set, filters, sparse fields, and what is never shown."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import Level
from apps.accounts.services import create_service_account, give_grant
from apps.audit.models import AuditEvent
from apps.mappings.masking import MASKED
from apps.rules.models import Rule
from apps.sources.models import Field, Source
from apps.sources.services import save_source
from tests.platforms import PLAIN_FIELDS, Pair
from tests.programs import program

pytestmark = pytest.mark.django_db


def test_configuration_is_read_as_it_is(root, pair):
    source = root.get(f"sources/{pair.mapping.left.source_id}").json()
    assert (source["name"], source["connector"]) == ("pair left", "sqlite")
    assert source["settings"]["path"].endswith("pair-left.db")

    dataset = root.get(f"datasets/{pair.mapping.right_id}").json()
    assert dataset["key"] == ["client_id"]
    assert [f["name"] for f in dataset["fields_of_records"]][:2] == ["client_id", "full_name"]

    mapping = root.get(f"mappings/{pair.mapping.pk}").json()
    assert mapping["left"] == str(pair.mapping.left_id)
    assert mapping["field_mappings"][0]["right"] == "client_id"

    rule = root.get(f"rules/{pair.rule.pk}").json()
    assert (rule["name"], rule["version"], rule["delta"]) == ("pair", 1, "full")
    assert rule["mapping"] == str(pair.mapping.pk)


def test_a_list_is_read_page_by_page_whatever_is_added_meanwhile(root):
    names = [f"s{number}" for number in range(5)]
    for name in names:
        Source.objects.create(name=name, connector="sqlite")

    first = root.get("sources", limit=2).json()
    Source.objects.create(name="later", connector="sqlite")
    second = root.get("sources", limit=2, cursor=first["next"]).json()
    third = root.get("sources", limit=2, cursor=second["next"]).json()

    found = [row for page in (first, second, third) for row in page["items"]]
    assert sorted(row["name"] for row in found) == names
    assert [row["id"] for row in found] == sorted((row["id"] for row in found), reverse=True)
    assert third["next"] is None


def test_lists_are_narrowed(root, pair):
    run = pair.run(mode="dry_run")

    def ids(place: str, **query: str) -> list[str]:
        return [row["id"] for row in root.get(place, **query).json()["items"]]

    left = pair.mapping.left
    assert ids("datasets", source=str(left.source_id)) == [str(left.pk)]
    assert ids("rules", name="pair", enabled="false") == [str(pair.rule.pk)]
    assert ids("rules", direction="two_way") == []
    assert ids("runs", rule=str(pair.rule.pk), mode="dry_run") == [str(run.pk)]
    assert ids("runs", created_before="2001-01-01T00:00:00Z") == []
    assert ids("mappings", right=str(pair.mapping.right_id)) == [str(pair.mapping.pk)]


def test_only_the_fields_that_are_asked_for_are_sent(root, pair):
    page = root.get("rules", fields="id,name").json()
    one = root.get(f"rules/{pair.rule.pk}", fields="name").json()

    assert page["items"] == [{"id": str(pair.rule.pk), "name": "pair"}]
    assert one == {"name": "pair"}
    answer = root.get("rules", fields="id,sealed_secrets")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["place"] == "fields"


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "x"},
        {"cursor": "x"},
        {"health": "splendid"},
        {"no_such": "1"},
        {"fields": ""},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(root, query):
    answer = root.get("sources", **query)

    assert answer.status_code == 400
    assert answer.json()["code"] == "api.invalid"
    assert answer.json()["errors"][0]["place"] == next(iter(query))


def test_secrets_are_never_shown_only_which_are_set(root):
    source = Source(name="db", connector="postgresql")
    values = {"host": "127.0.0.1", "database": "d", "user": "u", "password": "canary-secret"}
    save_source(source, values, actor=None)

    for place in ("sources", f"sources/{source.pk}"):
        answer = root.get(place)
        assert "canary-secret" not in answer.content.decode()
    assert list(root.get(f"sources/{source.pk}").json()["secrets_set"]) == ["password"]


def test_personal_values_are_masked_even_for_administrators(root, pair):
    Field.objects.filter(name__in=("email", "mail")).update(personal_data="contact")
    run = pair.run()

    found = root.get(f"runs/{run.pk}/changes").json()["items"]
    one = root.get(f"changes/{found[0]['id']}").json()
    record = root.get("records", dataset=str(pair.mapping.right_id), key="1").json()

    assert found[0]["fields_written"]
    for change in (found[0], one, record["changes"][0]):
        assert "Example.org" not in str(change)
    assert MASKED in str(one) or one["after"] is None


def test_changes_of_a_run_are_paged_and_narrowed(root, pair):
    pair.run()
    pair.on_left("UPDATE customers SET name = 'New'")
    run = pair.run()

    first = root.get(f"runs/{run.pk}/changes", limit=2).json()
    second = root.get(f"runs/{run.pk}/changes", limit=2, cursor=first["next"]).json()

    assert len(first["items"]) == 2
    assert len(second["items"]) == 1
    assert second["next"] is None
    assert first["items"][0]["after"]["full_name"] == "New"
    by_key = root.get(f"runs/{run.pk}/changes", key="2", operation="update").json()["items"]
    assert [row["right_key"] for row in by_key] == ['["2"]']
    assert root.get(f"runs/{run.pk}/changes", operation="delete").json()["items"] == []


def test_a_record_is_looked_up_by_its_key_across_systems(root, pair):
    pair.run()
    pair.on_left("UPDATE customers SET name = 'New' WHERE id = 2")
    pair.run()

    found = root.get("records", dataset=str(pair.mapping.left_id), key="2").json()

    assert {a["dataset"] for a in found["addresses"]} == {
        str(pair.mapping.left_id),
        str(pair.mapping.right_id),
    }
    assert [c["operation"] for c in found["changes"]] == ["update", "insert"]
    assert found["rules"][0]["link"] == "live"
    assert root.get("records", dataset=str(pair.mapping.left_id), key="99").status_code == 404


def test_the_log_of_a_run_is_followed(root, pair):
    run = pair.run()

    first = root.get(f"runs/{run.pk}/log", limit=2).json()
    rest = root.get(f"runs/{run.pk}/log", cursor=first["next"]).json()

    assert first["items"][0]["message"].startswith("Requested")
    assert rest["next"] is None
    whole = [line["id"] for line in (*first["items"], *rest["items"])]
    assert whole == list(run.log.values_list("id", flat=True))


def test_the_audit_log_is_read_and_not_written(root, pair):
    before = AuditEvent.objects.count()

    page = root.get("audit", action="rule.", limit=1).json()
    event = root.get(f"audit/{page['items'][0]['id']}").json()

    assert event["action"].startswith("rule.")
    assert root.get("audit", since="2001-01-01", until="2001-01-02").json()["items"] == []
    assert AuditEvent.objects.count() == before


def test_what_is_out_of_reach_is_not_there(pair, root):
    pair.run()
    account = create_service_account("robot", actor=None)
    robot = program(account)
    run = Rule.objects.get().runs.get()
    places = [
        f"sources/{pair.mapping.left.source_id}",
        f"datasets/{pair.mapping.left_id}",
        f"mappings/{pair.mapping.pk}",
        f"rules/{pair.rule.pk}",
        f"runs/{run.pk}",
        f"runs/{run.pk}/log",
        f"runs/{run.pk}/changes",
    ]
    assert {root.get(place).status_code for place in places} == {200}
    assert {robot.get(place).status_code for place in places} == {403}  # no role at all

    account.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    assert {robot.get(place).status_code for place in places} == {404}
    for place in ("sources", "datasets", "mappings", "rules", "runs"):
        assert robot.get(place).json()["items"] == []
    assert robot.get("runs", rule=str(pair.rule.pk)).json()["items"] == []

    give_grant(account, pair.rule, Level.SEE, actor=None)
    assert robot.get(f"rules/{pair.rule.pk}").status_code == 200
    assert robot.get(f"runs/{run.pk}").status_code == 200
    assert robot.get(f"sources/{pair.mapping.left.source_id}").status_code == 404


@pytest.mark.parametrize("place", ["sources", "datasets", "mappings", "rules", "runs"])
def test_a_longer_list_asks_the_database_no_more(root, tmp_path, place):
    for number in (1, 2, 3):
        Pair(tmp_path, name=f"p{number}", fields=PLAIN_FIELDS).run(mode="dry_run")
    root.get(place)
    counts = []
    for limit in (1, 3):
        with CaptureQueriesContext(connection) as asked:
            assert len(root.get(place, limit=limit).json()["items"]) == limit
        counts.append(len(asked))

    assert counts[0] == counts[1]
