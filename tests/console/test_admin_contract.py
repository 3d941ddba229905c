"""What holds for every page of the admin, whoever adds one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.urls import reverse

from apps.accounts.services import create_service_account
from apps.alerts.models import Channel, Delivery, EscalationPolicy, EscalationStep, Incident
from apps.api.models import OAuthClient
from apps.console.site import LockstepAdminSite
from apps.core.admin import BaseAdmin, ObjectAction, ReadOnlyAdmin
from apps.core.clock import now
from apps.ledger.models import Rejection
from apps.rules.models import SyncDraft
from apps.runs.models import RestoreRequest, Run
from apps.runs.services import UndoScope
from tests.hub_world import in_use
from tests.people import administrator, person, signed_in, viewer
from tests.platforms import Pair
from tests.two_way import TwoWay

MOST_QUERIES = 41


@pytest.fixture
def pair(tmp_path: Any) -> Pair:
    """Real rows for every list: two runs, changes, a rejection, a lookup, a role."""
    from apps.engine.spec import CheckKind, CheckSpec
    from apps.mappings.services import save_lookup
    from apps.sources.models import Drift

    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern="n[0-4].*")
    pair = Pair(tmp_path, checks=[check])
    pair.add_customers(9)
    pair.run(mode=Run.Mode.DRY_RUN)
    pair.run()
    save_lookup("iso", {"Germany": "DE"}, actor=None)
    Group.objects.create(name="Operators")
    person("colleague")
    create_service_account("robot", actor=None)
    OAuthClient.objects.create(
        name="Reports",
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://reports.example/back",
        allowed_scopes=["runs:read"],
    )
    TwoWay(tmp_path).of_every_kind()
    RestoreRequest.objects.create(
        rule=pair.rule, scope=UndoScope(right_key='["1"]').as_json(), reason="wrong"
    )
    Drift.objects.create(
        source=pair.mapping.left.source, dataset_name="customers", kind=Drift.Kind.DATASET_ADDED
    )
    tell_of_an_incident(pair)
    in_use()
    return pair


def tell_of_an_incident(pair: Pair) -> None:
    """An incident of the rule, a policy, a channel and a message."""
    policy = EscalationPolicy.objects.create(name="On call", is_default=True)
    channel = Channel.objects.create(name="Mail")
    EscalationStep.objects.create(policy=policy, channel=channel)
    incident = Incident.objects.create(
        kind="stale", fingerprint="x", rule=pair.rule, title="x", severity=2, last_seen_at=now()
    )
    Delivery.objects.create(incident=incident, channel=channel, occasion="step 1")


def model_admins() -> Iterator[Any]:
    return iter(admin.site._registry.values())


def object_actions() -> list[tuple[Any, ObjectAction]]:
    return [(a, action) for a in model_admins() for action in getattr(a, "object_actions", ())]


def action_id(value: Any) -> str:
    return value.name if isinstance(value, ObjectAction) else type(value).__name__


def test_the_site_is_ours():
    assert isinstance(admin.site._wrapped, LockstepAdminSite)


def test_every_model_admin_stands_on_the_base():
    strangers = [type(a).__name__ for a in model_admins() if not isinstance(a, BaseAdmin)]
    assert strangers == []


def test_every_bulk_action_names_its_permission_and_asks_first():
    for model_admin in model_admins():
        for name in model_admin.actions or ():
            action = getattr(model_admin, name)
            assert action.allowed_permissions, f"{type(model_admin).__name__}.{name}"
            assert "{count}" in action.question, f"{type(model_admin).__name__}.{name}"


def test_no_action_of_the_theme_is_a_link():
    """The theme's own actions change state by GET unless they have a dialog: none is used."""
    kinds = ("actions_list", "actions_row", "actions_detail", "actions_submit_line")
    for model_admin in model_admins():
        assert not [kind for kind in kinds if getattr(model_admin, kind)]


@pytest.mark.parametrize(("model_admin", "action"), object_actions(), ids=action_id)
def test_every_object_action_has_a_permission_that_exists(db, model_admin, action):
    from django.contrib.auth.models import Permission

    codename = f"{action.permission}_{model_admin.opts.model_name}"
    assert Permission.objects.filter(
        content_type__app_label=model_admin.opts.app_label, codename=codename
    ).exists()
    assert callable(getattr(model_admin, action.handler))


@pytest.mark.django_db(transaction=True)
def test_every_page_opens_for_an_administrator(pair, django_assert_max_num_queries):
    client = signed_in(administrator())
    request = RequestFactory().get("/")
    request.user = administrator("second")
    for model_admin in model_admins():
        addresses = [model_admin.url("changelist")]
        obj = model_admin.model._default_manager.first()
        assert obj is not None, f"no {model_admin.opts.model_name} to look at"
        addresses += [model_admin.url("change", obj.pk), model_admin.url("history", obj.pk)]
        if model_admin.has_add_permission(request):
            addresses.append(model_admin.url("add"))
        for address in addresses:
            with django_assert_max_num_queries(MOST_QUERIES, info=address):
                assert client.get(address).status_code == 200, address


@pytest.mark.django_db(transaction=True)
def test_every_page_opens_for_who_may_only_look(pair):
    client = signed_in(viewer())
    for model_admin in model_admins():
        obj = model_admin.model._default_manager.first()
        for address in (model_admin.url("changelist"), model_admin.url("change", obj.pk)):
            page = client.get(address)
            assert page.status_code == 200, address
            assert 'name="_save"' not in page.content.decode(), address


@pytest.mark.django_db
def test_every_empty_list_says_what_to_do_next(client):
    client = signed_in(administrator())
    for model_admin in model_admins():
        if model_admin.model._default_manager.exists():
            continue
        page = client.get(model_admin.url("changelist")).content.decode()
        assert "ls-empty" in page, model_admin
        assert "yielded into no results" not in page


@pytest.mark.django_db(transaction=True)
def test_no_list_asks_more_with_more_rows(pair, django_assert_max_num_queries):
    client = signed_in(administrator())
    address = reverse("admin:runs_run_changelist")
    client.get(address)
    for _ in range(6):
        pair.run()
    with django_assert_max_num_queries(25):
        client.get(address)


@pytest.mark.django_db(transaction=True)
def test_who_may_only_look_changes_nothing(pair):
    client = signed_in(viewer())
    for model_admin, action in object_actions():
        obj = model_admin.model._default_manager.first()
        address = model_admin.url("do", obj.pk, action.name)
        assert client.post(address).status_code == 403, address


@pytest.mark.django_db(transaction=True)
def test_no_version_is_written_back(pair):
    """The history library's page saves what is posted to it, to whoever may look."""
    for model_admin in model_admins():
        if not hasattr(model_admin, "history_form_view"):
            continue
        obj = model_admin.model._default_manager.first()
        kept = obj.history.count()
        place = (obj.pk, obj.history.first().pk)
        address = reverse(f"admin:{model_admin.url_name('simple_history')}", args=place)
        typed = {"name": "typed", "description": "typed"}
        for user in (viewer(f"looks at {model_admin.opts.model_name}"), administrator(str(obj.pk))):
            assert signed_in(user).get(address).status_code == 200, address
            assert signed_in(user).post(address, typed).status_code == 405, address
        assert obj.history.count() == kept, address


@pytest.mark.django_db(transaction=True)
def test_an_address_that_makes_no_sense_is_no_error_of_ours(pair):
    run = Run.objects.first()
    client = signed_in(administrator())
    mapping, source = "admin:mappings_mapping_", "admin:sources_source_"
    for after in ("%C2%B2", "9" * 40, "x"):
        for page in ("changes", "live"):
            address = reverse(f"admin:runs_run_{page}", args=(run.pk,))
            assert client.get(f"{address}?after={after}").status_code in (200, 286), after
    assert client.get(reverse(f"{mapping}add") + "?left=x&right=y").status_code == 200
    assert client.get(reverse("admin:rules_rule_add") + "?mapping=x").status_code == 200
    for name, fields in {
        f"{mapping}preview": {"left_dataset": "x"},
        f"{mapping}suggest": {"left_dataset": ""},
        f"{mapping}create_target": {"left": "x"},
        f"{source}test": {"source_id": "x"},
    }.items():
        assert client.post(reverse(name), fields).status_code == 404, name


@pytest.mark.django_db(transaction=True)
def test_a_get_changes_nothing(pair):
    client = signed_in(administrator())
    for model_admin, action in object_actions():
        obj = model_admin.model._default_manager.first()
        address = model_admin.url("do", obj.pk, action.name)
        assert client.get(address).status_code == 405, address
    for name in ("pause_everything", "resume_everything", "remove_demo", "new_sync_start"):
        assert client.get(reverse(f"admin:{name}")).status_code == 405, name


@pytest.mark.django_db(transaction=True)
def test_read_only_pages_offer_no_change(pair):
    request = RequestFactory().get("/")
    request.user = administrator()
    for model_admin in model_admins():
        if isinstance(model_admin, ReadOnlyAdmin):
            assert not model_admin.has_add_permission(request)
            assert not model_admin.has_change_permission(request)
            assert not model_admin.has_delete_permission(request)


@pytest.mark.django_db
def test_pages_of_others_are_not_there(client):
    draft = SyncDraft.objects.create(owner=administrator())
    other = signed_in(administrator("other"))
    assert other.get(reverse("admin:new_sync_step", args=(draft.pk, "sources"))).status_code == 404


@pytest.mark.django_db
def test_the_wizard_asks_for_the_right_to_add_rules():
    client = signed_in(viewer())
    assert client.get(reverse("admin:new_sync")).status_code == 403
    assert client.post(reverse("admin:new_sync_start")).status_code == 403
    assert not SyncDraft.objects.exists()


@pytest.mark.django_db
def test_pausing_everything_needs_its_own_permission():
    address = reverse("admin:pause_everything")
    assert signed_in(viewer()).post(address).status_code == 403
    assert signed_in(person("boss", "core.pause_platform")).post(address).status_code == 302


@pytest.mark.django_db
def test_the_sidebar_shows_what_may_be_opened():
    page = signed_in(person("auditor", "sources.view_source")).get("/admin/").content.decode()
    assert reverse("admin:sources_source_changelist") in page
    assert reverse("admin:runs_run_changelist") not in page.split("nav-sidebar-apps")[1][:4000]


@pytest.mark.django_db
def test_the_sidebar_counts_what_waits_and_shows_nothing_where_nothing_does():
    client = signed_in(administrator())
    page = client.get("/admin/").content.decode()
    assert "data-ls-waiting" not in page
    ids = dict.fromkeys(("rule_id", "run_id", "first_run_id"), uuid4())
    Rejection.objects.create(**ids, identity_hash=b"1", code="record.invalid")
    page = client.get("/admin/").content.decode()
    assert page.count("data-ls-waiting") == 1


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["403.html", "403_csrf.html", "404.html", "500.html"])
def test_an_error_says_where_to_go_on(name):
    """These pages are made when anything may be broken: without a request, without a database."""
    page = render_to_string(name)
    assert reverse("admin:index") in page
    assert "Lockstep" in page


@pytest.mark.django_db
def test_who_may_not_is_told_so_in_words():
    answer = signed_in(person("newcomer")).get(reverse("admin:runs_run_changelist"))
    assert answer.status_code == 403
    assert "An administrator can give it to you" in answer.content.decode()


@pytest.mark.django_db
def test_an_empty_list_leads_only_where_this_person_may_go():
    Group.objects.all().delete()
    address = reverse("admin:auth_group_changelist")
    assert "Add a role" not in signed_in(viewer()).get(address).content.decode()
    assert "Add a role" in signed_in(administrator()).get(address).content.decode()
