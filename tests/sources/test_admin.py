"""Sources in the admin: forms from settings models, secrets, the test of unsaved values."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from django.urls import reverse

from apps.sources.models import Drift, Field, Source
from apps.sources.services import kept_secrets, save_source
from tests.people import administrator, person, signed_in, viewer
from tests.platforms import CUSTOMERS, sqlite_source

SECRET = "hunter2-never-shown"
POSTGRESQL = {
    "setting_host": "127.0.0.1",
    "setting_port": "9",
    "setting_database": "crm",
    "setting_user": "reader",
}
ADD = {"name": "CRM", "connector": "postgresql", "criticality": "normal", **POSTGRESQL}

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return signed_in(administrator())


@pytest.fixture
def stored() -> Source:
    values = {name.removeprefix("setting_"): value for name, value in POSTGRESQL.items()}
    source = Source(name="CRM", connector="postgresql")
    return save_source(source, {**values, "password": SECRET}, actor=None)


def change_url(source: Source) -> str:
    return reverse("admin:sources_source_change", args=(source.pk,))


def test_the_add_page_shows_the_chosen_connectors_fields(client):
    address = reverse("admin:sources_source_add")
    assert "setting_host" not in client.get(address).content.decode()
    assert "setting_host" in client.get(address + "?connector=postgresql").content.decode()
    assert "setting_folder" in client.get(address + "?connector=files").content.decode()


def test_a_source_is_added_with_its_settings(client):
    answer = client.post(
        reverse("admin:sources_source_add"), {**ADD, "setting_password": SECRET, "_save": "1"}
    )
    assert answer.status_code == 302, answer.content.decode()
    source = Source.objects.get(name="CRM")
    assert source.settings["host"] == "127.0.0.1"
    assert source.secrets() == {"password": SECRET}
    assert SECRET not in str(source.settings)


def test_a_wrong_setting_is_named_beside_its_field(client):
    answer = client.post(
        reverse("admin:sources_source_add"), {**ADD, "setting_port": "many", "_save": "1"}
    )
    assert answer.status_code == 200
    assert "setting_port" in answer.context["adminform"].form.errors
    assert not Source.objects.exists()


def test_a_missing_setting_is_named_once(client):
    answer = client.post(
        reverse("admin:sources_source_add"), {**ADD, "setting_host": "", "_save": "1"}
    )
    assert len(answer.context["adminform"].form.errors["setting_host"]) == 1


def test_an_empty_secret_keeps_the_stored_one(client, stored):
    answer = client.post(change_url(stored), {**ADD, "setting_user": "writer", "_save": "1"})
    assert answer.status_code == 302
    stored.refresh_from_db()
    assert stored.secrets() == {"password": SECRET}
    assert stored.settings["user"] == "writer"


def test_no_page_shows_a_secret(client, stored):
    pages = [
        change_url(stored),
        reverse("admin:sources_source_changelist"),
        reverse("admin:sources_source_history", args=(stored.pk,)),
    ]
    for address in pages:
        assert SECRET not in client.get(address).content.decode(), address
    page = client.get(change_url(stored)).content.decode()
    assert "Stored, set on" in page
    assert "never shown" in page


def test_a_form_with_errors_does_not_give_the_typed_secret_back(client, stored):
    values = {**ADD, "setting_port": "many", "setting_password": SECRET, "_save": "1"}
    assert SECRET not in client.post(change_url(stored), values).content.decode()


def test_unsaved_values_are_tested(client):
    answer = client.post(reverse("admin:sources_source_test"), ADD)
    page = answer.content.decode()
    assert "Resolve" in page
    assert "Connect" in page
    assert "ls-remedy" in page
    assert not Source.objects.exists()


def test_a_saved_source_remembers_its_test(client, tmp_path: Path):
    source = sqlite_source("files", tmp_path / "one.db", CUSTOMERS)
    values = {"source_id": str(source.pk), "setting_path": source.settings["path"]}
    client.post(reverse("admin:sources_source_test"), values)
    source.refresh_from_db()
    assert source.health == Source.Health.OK


def test_testing_needs_the_right_to_save_what_is_tested(stored):
    address = reverse("admin:sources_source_test")
    assert signed_in(viewer()).post(address, ADD).status_code == 403
    tester = person("tester", "sources.view_source", "sources.check_source")
    values = {**POSTGRESQL, "source_id": str(stored.pk), "setting_host": "evil.example"}
    assert signed_in(tester).post(address, values).status_code == 404


def test_discovery_reports_drift_on_the_sources_page(client, tmp_path: Path):
    source = sqlite_source("shop", tmp_path / "shop.db", CUSTOMERS)
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("ALTER TABLE customers ADD COLUMN vat TEXT")
    client.post(reverse("admin:sources_source_do", args=(source.pk, "discover")))
    assert Drift.objects.get().field_name == "vat"
    assert "customers.vat" in client.get(change_url(source)).content.decode()


def test_pause_and_resume(client, stored):
    client.post(reverse("admin:sources_source_do", args=(stored.pk, "pause")))
    stored.refresh_from_db()
    assert stored.paused
    client.post(reverse("admin:sources_source_do", args=(stored.pk, "resume")))
    stored.refresh_from_db()
    assert not stored.paused


def test_who_may_only_look_sees_settings_without_secrets(stored):
    page = signed_in(viewer()).get(change_url(stored)).content.decode()
    assert "127.0.0.1" in page
    assert SECRET not in page
    assert "Save and continue" not in page


def test_a_source_is_deleted_with_what_was_known_of_it(client, tmp_path: Path):
    source = sqlite_source("shop", tmp_path / "shop.db", CUSTOMERS)
    address = reverse("admin:sources_source_delete", args=(source.pk,))
    assert client.post(address, {"post": "yes"}).status_code == 302
    assert not Source.objects.exists()
    assert (tmp_path / "shop.db").exists()


def test_a_datasets_key_is_written_as_names(client, tmp_path: Path):
    dataset = sqlite_source("shop", tmp_path / "shop.db", CUSTOMERS).datasets.get()
    address = reverse("admin:sources_dataset_change", args=(dataset.pk,))
    page = client.get(address)
    form = page.context["adminform"].form
    values = {name: value for name, value in form.initial.items() if value is not None}
    inline = page.context["inline_admin_formsets"][0].formset
    data = {**values, "depends_on": [], "key": "id, email", "_save": "1"}
    for name, value in inline.management_form.initial.items():
        data[f"fields-{name}"] = value
    for number, row in enumerate(inline.forms):
        data[f"fields-{number}-id"] = str(row.instance.pk)
        data[f"fields-{number}-dataset"] = str(dataset.pk)
        data[f"fields-{number}-personal_data"] = ""
    assert client.post(address, data).status_code == 302
    dataset.refresh_from_db()
    assert dataset.key == ["id", "email"]
    wrong = client.post(address, {**data, "key": "nothing"})
    assert "There is no field called nothing." in wrong.content.decode()


def test_the_inventory_takes_a_personal_data_class(client, tmp_path: Path):
    sqlite_source("shop", tmp_path / "shop.db", CUSTOMERS)
    address = reverse("admin:sources_field_changelist")
    fields = list(Field.objects.order_by("dataset__source__name", "dataset__name", "position"))
    data = {
        "form-TOTAL_FORMS": len(fields),
        "form-INITIAL_FORMS": len(fields),
        "_save": "Save",
    }
    for number, field in enumerate(fields):
        data[f"form-{number}-id"] = str(field.pk)
        data[f"form-{number}-personal_data"] = "contact" if field.name == "email" else ""
    assert client.post(address, data).status_code == 302
    assert Field.objects.get(name="email").personal_data == "contact"


def test_limits_are_set_and_taken_away_with_history(client, stored):
    page = client.get(change_url(stored)).content.decode()
    assert "each holds a connection or two" in page
    limits = {"most_partitions": "3", "most_rows_per_second": "500", "most_bytes_per_second": ""}
    assert client.post(change_url(stored), {**ADD, **limits, "_save": "1"}).status_code == 302
    stored.refresh_from_db()
    assert (stored.most_partitions, stored.most_rows_per_second) == (3, 500)
    assert stored.most_bytes_per_second is None
    assert client.post(change_url(stored), {**ADD, "_save": "1"}).status_code == 302
    assert [row.most_partitions for row in stored.history.all()][:2] == [None, 3]


def test_a_limit_of_nothing_is_refused(client, stored):
    answer = client.post(change_url(stored), {**ADD, "most_partitions": "0", "_save": "1"})
    assert "most_partitions" in answer.context["adminform"].form.errors


REST = {
    "name": "Shop API",
    "connector": "rest",
    "criticality": "normal",
    "setting_url": "https://api.example.org",
    "setting_definition": "datasets:\r\n  orders:\r\n    path: /orders\r\n",
    **dict.fromkeys(("setting_timeout", "setting_max_answer_mib"), "30"),
    **dict.fromkeys(("setting_retries", "setting_longest_wait", "setting_sample_records"), "3"),
}


def test_what_an_api_offers_is_written_as_text(client):
    answer = client.post(reverse("admin:sources_source_add"), {**REST, "_save": "1"})
    assert answer.status_code == 302, answer.content.decode()
    source = Source.objects.get(name="Shop API")
    assert source.settings["definition"] == "datasets:\n  orders:\n    path: /orders\n"
    page = client.get(change_url(source)).content.decode()
    assert "  orders:\n    path: /orders" in page.replace("\r\n", "\n")


def test_what_is_wrong_in_such_a_text_is_named_by_its_line(client):
    wrong = {"setting_definition": "datasets:\r\n  orders:\r\n    paths: /orders\r\n"}
    answer = client.post(reverse("admin:sources_source_add"), {**REST, **wrong, "_save": "1"})
    errors = answer.context["adminform"].form.errors["setting_definition"]
    assert any("line 3, datasets.orders.paths" in text for text in errors), errors


def test_the_secret_of_an_api_goes_to_no_other_address():
    values = {name.removeprefix("setting_"): REST[name] for name in REST if "setting_" in name}
    source = save_source(
        Source(name="API", connector="rest"),
        {**values, "auth": "bearer", "secret": SECRET},
        actor=None,
    )
    assert source.secrets() == {"secret": SECRET}
    for moved in ({"url": "https://evil.example"}, {"token_url": "https://evil.example/t"}):
        assert kept_secrets(source, "rest", {**source.settings, **moved}) == {}
    assert kept_secrets(source, "rest", {**source.settings, "timeout": 9}) == {"secret": SECRET}
