"""Incidents, policies and channels in the admin."""

from __future__ import annotations

import pytest
from django.urls import reverse

from apps.accounts.models import Level
from apps.accounts.services import give_grant
from apps.alerts.models import Channel, Delivery, EscalationPolicy, Incident, Kind
from apps.alerts.services import acknowledge, deliver_due, escalate, resolve, watch
from apps.audit.models import AuditEvent
from apps.core.clock import now
from apps.rules.models import Rule
from tests.alerts.conftest import Watched, in_minutes, policy_with
from tests.people import administrator, person, signed_in

pytestmark = pytest.mark.django_db


def page(incident: Incident) -> str:
    return reverse("admin:alerts_incident_change", args=(incident.pk,))


def handle(browser, incident, **sent):
    return browser.post(reverse("admin:alerts_incident_handle", args=(incident.pk,)), sent)


@pytest.fixture
def incident(watched) -> Incident:
    watched.fails()
    watch()
    return Incident.objects.get()


def test_an_incident_says_what_is_wrong_and_what_helped_the_last_time(incident, watched, ada):
    resolve(incident, actor=ada, cause="the certificate had ended", fix="a new certificate")
    watched.fails()
    watch()
    again = Incident.objects.order_by("created_at").last()

    shown = signed_in(administrator()).get(page(again)).content.decode()

    assert "the host does not answer" in shown
    assert "a new certificate" in shown
    assert "/api/v1/problems/source.unreachable" in shown
    assert "Back again" in shown
    assert "none: nobody is told" in shown


def test_it_is_acknowledged_snoozed_commented_and_resolved_there(incident):
    browser = signed_in(administrator())
    handle(browser, incident, comment="1", text="looking")
    handle(browser, incident, acknowledge="1", text="mine")
    incident.refresh_from_db()
    assert incident.state == "acknowledged"
    handle(browser, incident, snooze="1", hours="8")
    incident.refresh_from_db()
    assert (incident.state, incident.snoozed_until is not None) == ("snoozed", True)
    handle(browser, incident, snooze="1", hours="nonsense")
    incident.refresh_from_db()
    assert (incident.state, incident.snoozed_until) == ("snoozed", None)
    handle(browser, incident, resolve="1", cause="c", fix="f")
    incident.refresh_from_db()
    assert (incident.state, incident.found_cause, incident.fix) == ("resolved", "c", "f")
    answer = browser.post(
        reverse("admin:alerts_incident_handle", args=(incident.pk,)),
        {"acknowledge": "1"},
        follow=True,
    )
    assert "over already" in answer.content.decode()
    texts = [line.text for line in incident.timeline.all()]
    assert texts[1:3] == ["looking", "mine"]


def test_who_may_only_look_handles_nothing(incident):
    browser = signed_in(person("looker", "alerts.view_incident"))

    assert 'name="resolve"' not in browser.get(page(incident)).content.decode()
    assert handle(browser, incident, resolve="1").status_code == 403
    incident.refresh_from_db()
    assert incident.is_live


def test_without_a_grant_an_incident_is_not_there(incident):
    browser = signed_in(person("stranger", "alerts.view_incident", reaches_all=False))

    assert browser.get(page(incident)).status_code in (302, 404)
    listing = browser.get(reverse("admin:alerts_incident_changelist")).content.decode()
    assert incident.title not in listing


def test_the_sidebar_counts_what_nobody_has_taken_up(incident):
    browser = signed_in(administrator())
    shown = browser.get(reverse("admin:alerts_incident_changelist")).content.decode()
    assert "Incidents" in shown
    assert incident.title in shown


def test_a_channel_shows_its_secret_once_and_sends_a_test(incident):
    root = administrator()
    browser = signed_in(root)
    sent = {"name": "Chat", "kind": "webhook", "url": "https://example.org/hook", "enabled": "on"}
    shown = browser.post(reverse("admin:alerts_channel_add"), sent).content.decode()
    channel = Channel.objects.get()
    assert "whsec_" in shown
    again = browser.get(reverse("admin:alerts_channel_change", args=(channel.pk,)))
    assert "whsec_" not in again.content.decode()
    assert AuditEvent.objects.filter(action="channel.created").count() == 1

    browser.post(reverse("admin:alerts_channel_do", args=(channel.pk, "test")))
    assert Delivery.objects.get().occasion.startswith("test ")
    renewed = browser.post(reverse("admin:alerts_channel_do", args=(channel.pk, "renew-secret")))
    assert "whsec_" in renewed.content.decode()


def test_a_webhook_without_an_address_is_explained_in_its_form(db):
    sent = {"name": "Chat", "kind": "webhook", "url": "gopher://x", "enabled": "on"}
    shown = signed_in(administrator()).post(reverse("admin:alerts_channel_add"), sent)
    assert "begins with https://" in shown.content.decode()
    assert not Channel.objects.exists()


def test_a_policy_is_added_with_its_steps(db, mail):
    root = administrator()
    sent = {
        "name": "On call",
        "is_default": "on",
        "least_severity": "2",
        "time_zone": "Europe/Berlin",
        "work_days": "12345",
        "work_from": "22:00",
        "work_until": "06:00",
        "steps-TOTAL_FORMS": "1",
        "steps-INITIAL_FORMS": "0",
        "steps-0-after_minutes": "5",
        "steps-0-channel": str(mail.pk),
        "steps-0-people": [str(root.pk)],
    }
    browser = signed_in(root)
    wrong = browser.post(
        reverse("admin:alerts_escalationpolicy_add"),
        {**sent, "time_zone": "Mars/Base", "work_until": "22:00"},
    ).content.decode()
    assert "no such time zone" in wrong
    assert "end when they begin" in wrong
    browser.post(reverse("admin:alerts_escalationpolicy_add"), sent)
    step = EscalationPolicy.objects.get().steps.get()
    assert (step.after_minutes, step.people.get()) == (5, root)
    listing = browser.get(reverse("admin:alerts_escalationpolicy_changelist")).content.decode()
    assert "after 5 min by Mail" in listing


def test_deliveries_are_listed_with_their_errors(incident, ada, mail, settings):
    policy_with((0, mail, [ada]))
    settings.LOCKSTEP = {**settings.LOCKSTEP, "MAIL_CONFIGURED": False}
    Incident.objects.update(next_step_at=incident.created_at)
    escalate()
    deliver_due()
    browser = signed_in(administrator())
    shown = browser.get(reverse("admin:alerts_delivery_changelist")).content.decode()
    assert "ada@example.org" in shown
    assert "LOCKSTEP_MAIL_URL" in shown
    assert "LOCKSTEP_MAIL_URL" in browser.get(page(incident)).content.decode()


def test_the_overview_tells_of_what_nothing_else_shows(watched):
    policy_with(fresh_minutes=60)
    Rule.objects.update(enabled=True, schedule_since=now())
    watch(in_minutes(61))
    browser = signed_in(administrator())
    assert "pair: not fresh" in browser.get(reverse("admin:index")).content.decode()
    handle(browser, Incident.objects.get(), acknowledge="1")
    assert "pair: not fresh" not in browser.get(reverse("admin:index")).content.decode()


def test_what_helped_other_rules_is_shown_to_who_reaches_them(incident, watched, tmp_path, ada):
    resolve(incident, actor=ada, cause="", fix="a fix of a rule out of reach")
    other = Watched(tmp_path, name="other", fields=watched.fields)
    other.fails()
    watch()
    again = Incident.objects.get(rule=other.rule)
    somebody = person("somebody", "alerts.view_incident", reaches_all=False)
    give_grant(somebody, other.rule, Level.SEE, actor=None)

    assert "out of reach" not in signed_in(somebody).get(page(again)).content.decode()
    assert "out of reach" in signed_in(administrator()).get(page(again)).content.decode()


def test_somebody_else_can_take_it_over(incident, ada):
    acknowledge(incident, actor=ada)
    root = administrator()
    browser = signed_in(root)
    assert "Take it over" in browser.get(page(incident)).content.decode()
    handle(browser, incident, acknowledge="1")
    incident.refresh_from_db()
    assert incident.acknowledged_by == root
    assert "Take it over" not in browser.get(page(incident)).content.decode()


def test_a_cause_without_a_page_of_its_own_leads_nowhere(incident, mail):
    incident.kind, incident.cause_code = Kind.CHANNEL_SILENT, str(mail.pk)
    incident.save()
    assert str(mail.pk) not in signed_in(administrator()).get(page(incident)).content.decode()
