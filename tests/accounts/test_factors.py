"""Enrolling a second factor, adding more, removing them; seeds and codes are unreadable."""

from __future__ import annotations

import base64
import re

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from apps.accounts.models import AuthenticatorApp, RecoveryCode, User
from apps.accounts.selectors import own_factors, recovery_codes_left
from apps.accounts.services import create_administrator, new_recovery_codes, open_enrolment
from tests.people import PASSWORD, administrator, code_of, enrolled, log_in, person, signed_in

pytestmark = pytest.mark.django_db
ENROL = "/admin/enrol/"


@pytest.fixture
def newcomer() -> tuple[User, Client]:
    """Somebody with an own password and time to enrol, signed in with the password."""
    user = administrator()
    open_enrolment(user)
    client = Client()
    assert log_in(client, "root").url == reverse("admin:index")
    return user, client


def pending(user: User) -> AuthenticatorApp:
    return AuthenticatorApp.objects.get(user=user, confirmed=False)


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index")).status_code == 200


def test_the_first_start_leads_step_by_step():
    user, password = create_administrator()
    client, own = Client(), "a much better phrase"

    log_in(client, "admin", password)
    fields = {"old_password": password, "new_password1": own, "new_password2": own}
    client.post(reverse("admin:password_change"), fields)
    assert client.get("/admin/").url == ENROL
    client.get(ENROL)
    page = client.post(ENROL, {"code": code_of(pending(user))}).content.decode()

    assert len(re.findall(r"[a-z2-9]{4}(?:-[a-z2-9]{4}){3}</li>", page)) == 10
    assert is_in(client)


def test_the_page_shows_what_an_app_reads(newcomer):
    user, client = newcomer

    page = client.get(ENROL)

    secret = base64.b32encode(pending(user).seed).decode()
    assert page.context["secret"].replace(" ", "") == secret
    assert page.context["qr"]["size"] > 21
    assert f'd="{page.context["qr"]["path"]}"' in page.content.decode()


def test_a_reload_shows_the_same_code(newcomer):
    user, client = newcomer
    client.get(ENROL)
    first = pending(user).seed

    client.get(ENROL)

    assert pending(user).seed == first


def test_a_code_that_somebody_saw_long_ago_is_replaced(newcomer, later):
    user, client = newcomer
    client.get(ENROL)
    first = pending(user).seed

    later(minutes=59)
    client.get(ENROL)
    later(minutes=2)
    client.get(ENROL)

    assert pending(user).seed != first


def test_a_wrong_code_enrols_nothing(newcomer):
    user, client = newcomer
    client.get(ENROL)

    client.post(ENROL, {"code": "000000"})

    assert not own_factors(user)
    assert not is_in(client)


def test_the_time_to_enrol_ends(newcomer, later):
    user, client = newcomer
    client.get(ENROL)
    code = code_of(pending(user))
    User.objects.update(enrolment_ends_at=None)

    assert client.post(ENROL, {"code": code}).url.startswith(reverse("admin:login"))
    assert not own_factors(user)


def test_a_stolen_password_enrols_no_second_first_factor(newcomer):
    user, client = newcomer
    client.get(ENROL)
    client.post(ENROL, {"code": code_of(pending(user))})
    thief = Client()

    log_in(thief, "root")

    assert thief.get(ENROL).status_code == 302
    user.refresh_from_db()
    assert user.enrolment_ends_at is None


def test_enrolling_gives_the_session_a_new_key(newcomer):
    user, client = newcomer
    client.get(ENROL)
    before = client.cookies["sessionid"].value

    client.post(ENROL, {"code": code_of(pending(user))})

    assert client.cookies["sessionid"].value != before


def test_a_second_app_is_added_and_both_let_in():
    user = administrator()
    client = signed_in(user)
    new_recovery_codes(user)
    client.get(ENROL)

    answer = client.post(ENROL, {"code": code_of(pending(user)), "name": "Work phone"})

    assert answer.url == reverse("admin:security")
    first, second = own_factors(user)
    assert second.name == "Work phone"
    for app in (first, second):
        other = Client()
        log_in(other, "root")
        other.post(reverse("admin:login_code"), {"code": code_of(app)})
        assert is_in(other)


def test_the_only_factor_stays():
    user = administrator()
    client = signed_in(user)
    (app,) = own_factors(user)

    client.post(reverse("admin:security_remove"), {"factor": app.persistent_id})

    assert own_factors(user) == [app]
    assert is_in(client)


def test_removing_a_factor_ends_the_other_sessions():
    user = administrator()
    elsewhere, client = signed_in(user), signed_in(user)
    new = AuthenticatorApp.with_new_seed(user=user, name="New")
    new.save()
    session = client.session
    session["otp_device_id"] = new.persistent_id
    session.save()
    old = enrolled(user)

    client.post(reverse("admin:security_remove"), {"factor": old.persistent_id})

    assert own_factors(user) == [new]
    assert is_in(client)
    assert not is_in(elsewhere)


def test_nobody_removes_factors_of_others():
    victim, thief = administrator(), signed_in(person("thief"))
    app = enrolled(victim)
    AuthenticatorApp.with_new_seed(user=victim, name="New").save()

    thief.post(reverse("admin:security_remove"), {"factor": app.persistent_id})

    assert len(own_factors(victim)) == 2


def test_new_recovery_codes_are_shown_once_and_kept_as_hashes():
    user = administrator()
    client = signed_in(user)

    page = client.post(reverse("admin:recovery_codes")).content.decode()

    codes = re.findall(r"[a-z2-9]{4}(?:-[a-z2-9]{4}){3}", page)
    kept = " ".join(RecoveryCode.objects.values_list("digest", flat=True))
    assert recovery_codes_left(user) == 10
    assert not any(code.replace("-", "")[4:] in kept for code in codes)
    assert client.get(reverse("admin:recovery_codes")).status_code == 405


def test_no_seed_is_kept_in_clear():
    app = enrolled(administrator())
    seed = app.seed

    with connection.cursor() as cursor:
        cursor.execute("SELECT sealed_seed FROM accounts_authenticatorapp")
        (stored,) = cursor.fetchone()

    for spelling in (seed, seed.hex().encode(), base64.b32encode(seed)):
        assert spelling not in bytes(stored)


def test_a_seed_that_is_pasted_into_another_row_opens_nothing():
    mine, theirs = enrolled(administrator("mine")), enrolled(administrator("theirs"))
    client = Client()
    AuthenticatorApp.objects.filter(pk=theirs.pk).update(sealed_seed=mine.sealed_seed)
    log_in(client, "theirs", PASSWORD)

    page = client.post(reverse("admin:login_code"), {"code": code_of(mine)}).content.decode()

    assert "altered or moved" in page
    assert not is_in(client)


def test_a_clock_that_is_off_by_half_a_minute_is_forgiven(later):
    app = enrolled(administrator())
    code = code_of(app)
    client = Client()
    log_in(client, "root")

    later(seconds=30)
    client.post(reverse("admin:login_code"), {"code": code})

    assert is_in(client)
