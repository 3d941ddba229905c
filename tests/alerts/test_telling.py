"""Who is told, in which order, how often, and what becomes of each message."""

from __future__ import annotations

import base64
import json
from datetime import datetime, time, timedelta
from itertools import pairwise

import pytest
from django.contrib.auth.models import Group

from apps.alerts.models import Channel, Delivery, Incident, Severity
from apps.alerts.selectors import Policies
from apps.alerts.services import (
    acknowledge,
    deliver_due,
    escalate,
    renew_secret,
    save_channel,
    test_channel,
    watch,
)
from apps.alerts.services.channels import signature
from apps.alerts.services.delivering import MOST_ATTEMPTS
from apps.alerts.services.errors import ChannelInvalid
from apps.alerts.services.escalating import _in_working_hours
from apps.core.clock import now
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
