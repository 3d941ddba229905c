"""Who is told, in which order, how often, and what becomes of each message."""

from __future__ import annotations

import base64
import json
from datetime import datetime, time, timedelta
from itertools import pairwise

import pytest
from django.contrib.auth.models import Group

from apps.alerts.models import Channel, Delivery, EscalationPolicy, Incident, Severity
from apps.alerts.selectors import Policies
from apps.alerts.services import (
    acknowledge,
    deliver_due,
    escalate,
    renew_secret,
    save_channel,
    snooze,
    test_channel,
    watch,
)
from apps.alerts.services.channels import signature
from apps.alerts.services.delivering import MOST_ATTEMPTS
from apps.alerts.services.errors import ChannelInvalid
from apps.alerts.services.escalating import _in_working_hours
from apps.core.clock import now
from apps.core.services import set_platform_paused
from apps.rules.models import Rule
from tests.alerts.conftest import in_minutes, policy_with
from tests.alerts.sinks import mail_sink, web_sink
from tests.people import administrator, person

pytestmark = pytest.mark.django_db
send_test = test_channel
test_channel = None  # pytest would take it for a test


def told() -> list[str]:
    return [d.recipient or d.channel.name for d in Delivery.objects.order_by("created_at")]


def colleague(name: str, **facts):
    found = person(name)
    found.email = f"{name}@example.org"
    found.save()
    return found


@pytest.fixture
def hook(db):
    with web_sink() as sink:
        channel = Channel(name="Hook", kind=Channel.Kind.WEBHOOK, url=sink.url)
        sink.secret = save_channel(channel, actor=None)
        sink.channel = channel
        yield sink


def test_steps_follow_one_another_until_somebody_acknowledges(watched, ada, mail):
    bob, cid = colleague("bob"), colleague("cid")
    policy_with((0, mail, [ada]), (15, mail, [bob]), (45, mail, [cid]))
    watched.fails()
    watch()
    assert [escalate(), escalate()] == [1, 0]
    assert told() == ["ada@example.org"]
    assert [escalate(in_minutes(14)), escalate(in_minutes(16))] == [0, 1]
    assert told() == ["ada@example.org", "bob@example.org"]

    acknowledge(Incident.objects.get(), actor=ada)
    assert escalate(in_minutes(1000)) == 0
    assert len(told()) == 2


def test_the_last_step_is_repeated_until_somebody_acknowledges(watched, ada, mail):
    policy_with((0, mail, [ada]), repeat_minutes=30)
    watched.fails()
    watch()
    for minutes in (0, 31, 62):
        assert escalate(in_minutes(minutes)) == 1
    assert escalate(in_minutes(63)) == 0
    assert told() == ["ada@example.org"] * 3


def test_everybody_with_a_role_is_told_once(watched, ada, mail):
    policy = policy_with((0, mail, [ada]))
    role = Group.objects.get(name="Operator")
    policy.steps.get().groups.add(role)
    for somebody in (ada, colleague("bob"), person("nobody")):
        somebody.groups.add(role)
    gone = colleague("gone")
    gone.groups.add(role)
    gone.is_active = False
    gone.save()
    watched.fails()
    watch()
    escalate()
    assert sorted(told()) == ["ada@example.org", "bob@example.org"]


def test_what_is_mild_tells_nobody(watched, ada, mail):
    policy_with((0, mail, [ada]), least_severity=Severity.CRITICAL, most_rejections=0)
    watched.ended("refused", cause_code="guard.deletes")
    watch()
    assert Incident.objects.get().severity == Severity.WARNING
    assert escalate(in_minutes(600)) == 0


def test_one_message_when_it_begins_and_one_when_it_is_over(watched, ada, hook):
    policy_with((0, hook.channel, []))
    for _ in range(3):
        watched.fails()
        watch()
        escalate()
        deliver_due()
    watched.succeeds()
    for _ in range(2):
        watch()
        escalate()
        deliver_due()

    bodies = [json.loads(body) for _, body in hook.requests]
    assert [body["type"] for body in bodies] == ["incident.told", "incident.resolved"]
    assert bodies[0]["data"]["code"] == "source.unreachable"
    assert bodies[0]["data"]["url"].endswith(f"/{Incident.objects.get().pk}/change/")
    assert bodies[1]["data"]["resolved_at"]


def test_a_webhook_is_signed_as_standard_webhooks_has_it(watched, hook):
    send_test(hook.channel, actor=None)
    assert deliver_due() == 1

    headers, body = hook.requests[0]
    secret = base64.b64decode(hook.secret.removeprefix("whsec_"))
    number, at = headers["webhook-id"], int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == signature(secret, number, at, body)
    assert signature(secret, number, at + 1, body) != headers["webhook-signature"]
    # the example of the specification
    known = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert (
        signature(known, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_renewed_secret_signs_what_follows(hook):
    other = renew_secret(hook.channel, actor=None)
    send_test(hook.channel, actor=None)
    deliver_due()
    headers, body = hook.requests[0]
    secret = base64.b64decode(other.removeprefix("whsec_"))
    at = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == signature(secret, headers["webhook-id"], at, body)


def test_what_does_not_arrive_is_tried_again_and_given_up_in_the_end(watched, hook, monkeypatch):
    policy_with((0, hook.channel, []))
    hook.status = 503
    watched.fails()
    watch()
    escalate()
    pauses = []
    for _ in range(MOST_ATTEMPTS):
        assert deliver_due() == 0
        delivery = Delivery.objects.get()
        if delivery.next_attempt_at:
            pauses.append((delivery.next_attempt_at - now()).total_seconds())
        Delivery.objects.filter(state="pending").update(next_attempt_at=now())

    assert (delivery.state, delivery.attempts) == ("failed", MOST_ATTEMPTS)
    assert "503" in delivery.error
    assert pauses[0] < 40
    assert max(pauses) <= 2 * 3600 * 1.2
    assert all(later > earlier for earlier, later in pairwise(pauses[:7]))

    watch()
    silent = Incident.objects.get(kind="channel_silent")
    assert silent.title == "Hook: messages do not arrive"
    hook.status = 200
    send_test(hook.channel, actor=None)
    deliver_due()
    watch()
    silent.refresh_from_db()
    assert silent.state == "resolved"


def test_a_message_that_another_process_sends_is_left_alone(hook):
    delivery = send_test(hook.channel, actor=None)
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=now() + timedelta(minutes=1))
    assert deliver_due() == 0
    assert hook.requests == []


def test_a_webhook_leads_nowhere_that_is_not_allowed(db):
    channel = Channel(name="Inside", kind="webhook", url="http://169.254.169.254/latest/")
    save_channel(channel, actor=None)
    delivery = send_test(channel, actor=None)
    assert deliver_due() == 0
    delivery.refresh_from_db()
    assert delivery.state == "failed"
    assert "169.254.169.254" in delivery.error or "allow" in delivery.error


@pytest.mark.parametrize("url", ["", "ftp://example.org/x", "javascript:alert(1)", "https://"])
def test_a_webhook_needs_an_address(db, url):
    with pytest.raises(ChannelInvalid):
        save_channel(Channel(name="x", kind="webhook", url=url), actor=None)


def test_mail_goes_out_by_smtp(watched, ada, mail, settings):
    policy_with((0, mail, [ada]))
    with mail_sink() as sink:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sink.port
        settings.DEFAULT_FROM_EMAIL = "lockstep@example.org"
        watched.fails()
        watch()
        escalate()
        assert deliver_due() == 1

    message = sink.messages[0]
    assert message["to"] == "ada@example.org"
    assert message["subject"] == "[Critical] pair: run failed"
    text = message.get_content()
    assert "the host does not answer (source.unreachable)" in text
    assert f"/admin/alerts/incident/{Incident.objects.get().pk}/change/" in text


def test_a_recipient_that_the_server_refuses_does_not_keep_the_others(watched, ada, mail, settings):
    policy_with((0, mail, [colleague("nobody"), ada]))
    with mail_sink() as sink:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sink.port
        watched.fails()
        watch()
        escalate()
        assert deliver_due() == 1
    assert sorted(Delivery.objects.values_list("recipient", "state")) == [
        ("ada@example.org", "sent"),
        ("nobody@example.org", "pending"),
    ]


def test_without_a_mail_server_it_says_so(mail, settings):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "MAIL_CONFIGURED": False}
    root = administrator()
    with pytest.raises(ChannelInvalid, match="no mail address"):
        send_test(mail, actor=root)
    root.email = "root@example.org"
    delivery = send_test(mail, actor=root)
    deliver_due()
    delivery.refresh_from_db()
    assert (delivery.state, "LOCKSTEP_MAIL_URL" in delivery.error) == ("failed", True)


@pytest.mark.parametrize(
    ("severity", "due", "told_at"),
    [
        (2, "2026-11-27 16:00Z", "2026-11-27 16:00Z"),  # a Friday
        (2, "2026-11-27 18:00Z", "2026-11-30 08:00Z"),  # Monday
        (2, "2026-11-27 05:00Z", "2026-11-27 08:00Z"),
        (3, "2026-11-28 03:00Z", "2026-11-28 03:00Z"),  # critical: at night too
        (2, "2026-03-27 20:00Z", "2026-03-30 07:00Z"),  # over the change of clocks
    ],
)
def test_what_is_not_critical_waits_for_working_hours(db, severity, due, told_at):
    policy = policy_with(
        time_zone="Europe/Berlin", work_days="12345", work_from=time(9), work_until=time(18)
    )
    found = _in_working_hours(datetime.fromisoformat(due), policy, severity)
    assert found == datetime.fromisoformat(told_at)


def test_policies_are_read_in_few_questions(watched, django_assert_max_num_queries):
    policy_with().rules.add(watched.rule)
    with django_assert_max_num_queries(3):
        Policies.read().of(watched.rule)


def test_who_was_told_before_a_snooze_is_told_again_after_it(watched, ada, mail):
    policy_with((0, mail, [ada]))
    watched.fails()
    watch()
    escalate()
    snooze(Incident.objects.get(), actor=ada, hours=1)
    watch(in_minutes(61))
    escalate(in_minutes(62))
    assert told() == ["ada@example.org"] * 2


def test_steps_that_were_removed_are_not_taken_anew(watched, ada, mail):
    policy = policy_with((0, mail, [ada]), (15, mail, [colleague("bob")]))
    watched.fails()
    watch()
    escalate()
    policy.steps.last().delete()
    assert escalate(in_minutes(16)) == 0
    assert told() == ["ada@example.org"]
    assert Incident.objects.get().next_step_at is None


def test_a_step_that_reaches_nobody_says_so(watched, mail):
    policy_with((0, mail, []))
    watched.fails()
    watch()
    escalate()
    assert "nobody" in Incident.objects.get().timeline.last().text


@pytest.mark.parametrize(
    "facts",
    [{"paused": True}, {"enabled": False, "schedule_kind": "every", "every_minutes": 5}],
)
def test_nobody_is_told_of_a_rule_that_is_paused_or_switched_off(watched, ada, mail, facts):
    policy_with((0, mail, [ada]))
    watched.fails()
    watch()
    Rule.objects.update(**facts)
    assert escalate() == 0
    Rule.objects.update(paused=False, enabled=True)
    assert escalate() == 1


def test_nobody_is_told_of_stale_rules_while_everything_is_paused(watched, ada, mail):
    policy_with((0, mail, [ada]), fresh_minutes=60)
    Rule.objects.update(enabled=True, schedule_since=now())
    set_platform_paused(True, actor=None)
    watch(in_minutes(90))
    assert Incident.objects.get().kind == "stale"
    assert escalate(in_minutes(91)) == 0
    set_platform_paused(False, actor=None)
    assert escalate(in_minutes(91)) == 1


def test_of_a_role_only_those_are_told_who_may_see_the_incident(watched, ada, mail):
    policy = policy_with((0, mail, []))
    role = Group.objects.get(name="Operator")
    policy.steps.get().groups.add(role)
    stranger = person("eve", reaches_all=False)
    stranger.email = "eve@example.org"
    stranger.save()
    for somebody in (ada, stranger):
        somebody.groups.add(role)
    watched.fails()
    watch()
    escalate()
    assert told() == ["ada@example.org"]


def test_what_nobody_got_is_not_sent_once_it_is_over(watched, ada, mail, hook):
    policy_with((0, hook.channel, []), (0, mail, [ada]))
    hook.status = 503
    watched.fails()
    watch()
    escalate()
    assert deliver_due() == 0  # tried: it may have arrived
    escalate(in_minutes(1))  # not tried
    watched.succeeds()
    watch()
    states = Delivery.objects.order_by("created_at").values_list("channel__name", "state")
    assert list(states) == [("Hook", "dropped"), ("Mail", "dropped"), ("Hook", "pending")]
    hook.status = 200
    Delivery.objects.filter(state="pending").update(next_attempt_at=now())
    deliver_due()
    assert json.loads(hook.requests[-1][1])["type"] == "incident.resolved"


def test_a_channel_that_was_disabled_sends_nothing_more(watched, hook):
    policy_with((0, hook.channel, []))
    watched.fails()
    watch()
    escalate()
    Channel.objects.update(enabled=False)
    assert deliver_due() == 0
    assert (hook.requests, Delivery.objects.get().state) == ([], "dropped")


def test_a_message_whose_sender_dies_each_time_is_given_up(hook):
    delivery = send_test(hook.channel, actor=None)
    Delivery.objects.update(attempts=MOST_ATTEMPTS)
    assert deliver_due() == 0
    delivery.refresh_from_db()
    assert (delivery.state, hook.requests) == ("failed", [])


def test_a_silent_channel_stays_an_incident_until_something_arrives_or_it_is_disabled(hook):
    delivery = send_test(hook.channel, actor=None)
    old = now() - timedelta(days=9)
    Delivery.objects.filter(pk=delivery.pk).update(state="failed", created_at=old, updated_at=old)
    watch()
    assert Incident.objects.get().state == "open"
    Channel.objects.update(enabled=False)
    watch()
    assert Incident.objects.get().state == "resolved"


def test_that_it_is_over_waits_for_working_hours_too(watched, ada, mail, monkeypatch):
    policy_with((0, mail, [ada]))
    watched.ended("refused", cause_code="guard.deletes")
    watch()
    escalate()
    deliver_due()
    yesterday = (now() - timedelta(days=1)).isoweekday()
    EscalationPolicy.objects.update(work_days=str(yesterday))
    watched.succeeds()
    watch()
    assert Delivery.objects.get(occasion="over").next_attempt_at > now() + timedelta(days=5)


def test_a_step_that_nobody_took_in_time_waits_for_the_next_working_hour(watched, ada, mail):
    policy_with((0, mail, [ada]))
    watched.ended("refused", cause_code="guard.deletes")
    watch()
    EscalationPolicy.objects.update(work_days=str((now() - timedelta(days=1)).isoweekday()))
    assert escalate() == 0
    assert Incident.objects.get().next_step_at > now() + timedelta(days=5)


@pytest.mark.parametrize(
    ("due", "told_at"),
    [
        ("2026-11-27 23:00Z", "2026-11-27 23:00Z"),  # Saturday, 0:00, of Friday's
        ("2026-11-28 04:59Z", "2026-11-28 04:59Z"),
        ("2026-11-28 05:00Z", "2026-11-30 21:00Z"),  # Monday, 22:00
        ("2026-11-27 12:00Z", "2026-11-27 21:00Z"),
        ("2026-10-24 22:00Z", "2026-10-26 21:00Z"),  # Sunday, 0:00: nobody works
    ],
)
def test_working_hours_go_on_over_night(db, due, told_at):
    policy = policy_with(
        time_zone="Europe/Berlin", work_days="12345", work_from=time(22), work_until=time(6)
    )
    found = _in_working_hours(datetime.fromisoformat(due), policy, Severity.WARNING)
    assert found == datetime.fromisoformat(told_at)


def test_an_hour_that_comes_twice_counts_twice(db):
    policy = policy_with(time_zone="Europe/Berlin", work_from=time(2, 30), work_until=time(5))
    early = datetime.fromisoformat("2026-10-25 00:15Z")  # 2:15, the first time
    again = datetime.fromisoformat("2026-10-25 01:15Z")  # 2:15, the second time
    assert _in_working_hours(early, policy, 2) == datetime.fromisoformat("2026-10-25 00:30Z")
    assert _in_working_hours(again, policy, 2) == again


def test_what_has_not_gone_out_is_not_sent_once_somebody_has_it(watched, ada, mail):
    policy_with((0, mail, [colleague("bob")]))
    watched.fails()
    watch()
    escalate()
    acknowledge(Incident.objects.get(), actor=ada)
    assert deliver_due() == 0
    assert Delivery.objects.get().state == "dropped"
