"""Two steps let people in; one alone opens nothing, at no door."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.test import Client
from django.urls import reverse

from apps.accounts.models import AuthenticatorApp, User
from apps.accounts.services import lift_locks, new_recovery_codes
from apps.audit.models import AuditEvent
from tests.people import PASSWORD, administrator, code_of, enrolled, log_in, prove

pytestmark = pytest.mark.django_db
DOORS = ("/", "/admin/", "/admin/runs/run/", "/admin/security/", "/admin/search/?s=x", "/admin/x/")


@pytest.fixture
def root() -> User:
    return administrator()


@pytest.fixture
def app(root: User) -> AuthenticatorApp:
    return enrolled(root)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Which of Django's signals about signing in were sent."""
    names: list[str] = []

    def failed(**kwargs: object) -> None:
        names.append("failed")

    def signed_in(**kwargs: object) -> None:
        names.append("signed in")

    user_login_failed.connect(failed)
    user_logged_in.connect(signed_in)
    yield names
    user_login_failed.disconnect(failed)
    user_logged_in.disconnect(signed_in)


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index")).status_code == 200


def test_both_steps_let_in(client, app, heard):
    answer = log_in(client, "root")

    assert answer.url.startswith(reverse("admin:login_code"))
    assert heard == []
    assert prove(client, code_of(app)).url == reverse("admin:index")
    assert is_in(client)
    assert heard == ["signed in"]


@pytest.mark.parametrize("door", DOORS)
def test_the_password_alone_opens_no_door(client, app, door):
    log_in(client, "root")

    assert client.get(door, follow=True).redirect_chain
    assert not is_in(client)


@pytest.mark.parametrize("door", DOORS)
def test_a_session_that_came_about_elsewhere_ends_at_every_door(client, root, app, door):
    client.force_login(root)

    assert client.get(door).status_code == 302
    assert "_auth_user_id" not in client.session


def test_a_session_without_factor_and_without_time_to_enrol_ends(client, root):
    client.force_login(root)

    answer = client.get("/admin/runs/run/")

    assert answer.url == f"{reverse('admin:login')}?next=/admin/runs/run/"
    assert "_auth_user_id" not in client.session


def test_the_way_leads_where_the_person_was_heading(client, app):
    target = "/admin/runs/run/?status=failed"

    answer = client.get("/admin/runs/run/?status=failed")
    answer = client.post(answer.url, {"username": "root", "password": PASSWORD})
    page = client.get(answer.url)

    assert page.context["next"] == target
    assert prove(client, code_of(app), next=target).url == target


def test_the_way_leads_to_nobody_else(client, app):
    log_in(client, "root", next="https://evil.example/")

    answer = prove(client, code_of(app), next="https://evil.example/")

    assert answer.url == reverse("admin:index")


@pytest.mark.parametrize("code", ["000000", "", "abc", "12345678", "²²²²²²", "abcd-efgh-jkmn-pqrs"])
def test_a_wrong_code_does_not(client, app, code):
    log_in(client, "root")

    assert prove(client, code).status_code == 200
    assert not is_in(client)


def test_a_code_is_taken_once(client, app):
    code = code_of(app)
    log_in(client, "root")
    prove(client, code)
    other = Client()
    log_in(other, "root")

    prove(other, code)

    assert not is_in(other)


def test_a_code_of_somebody_else_does_not(client, app):
    other = enrolled(administrator("other"))
    log_in(client, "root")

    prove(client, code_of(other))

    assert not is_in(client)


def test_the_second_step_without_the_first_leads_back(client, app):
    assert prove(client, code_of(app)).url == reverse("admin:login")


def test_the_first_step_counts_for_ten_minutes(client, app, later):
    log_in(client, "root")

    later(minutes=11)

    assert prove(client, code_of(app)).url == reverse("admin:login")
    assert not is_in(client)


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}, {"password": "x"}])
def test_the_first_step_counts_only_while_it_would_succeed_again(client, app, change):
    log_in(client, "root")

    User.objects.update(**change)

    assert prove(client, code_of(app)).url == reverse("admin:login")


def test_a_recovery_code_lets_in_once(client, root, app):
    code = new_recovery_codes(root)[3]
    log_in(client, "root")
    assert prove(client, code.upper().replace("-", " ")).status_code == 302
    assert b"9 are left" in client.get(reverse("admin:index")).content
    other = Client()
    log_in(other, "root")

    prove(other, code)

    assert not is_in(other)


def test_new_recovery_codes_replace_the_old_ones(client, root, app):
    old = new_recovery_codes(root)[0]
    new_recovery_codes(root)
    log_in(client, "root")

    prove(client, old)

    assert not is_in(client)


def test_the_session_gets_a_new_key_at_each_step(client, app):
    client.get(reverse("admin:login"))
    client.cookies["sessionid"] = "chosen-by-somebody-else"
    log_in(client, "root")
    between = client.cookies["sessionid"].value
    prove(client, code_of(app))
    after = client.cookies["sessionid"].value

    assert len({"chosen-by-somebody-else", between, after}) == 3


def test_after_wrong_codes_the_right_one_has_to_wait(client, app, later):
    log_in(client, "root")
    for _ in range(3):
        prove(client, "000000")
        later(seconds=9)
    prove(client, "000000")

    page = prove(client, code_of(app)).content.decode()

    assert "too many wrong codes" in page.lower()
    assert not is_in(client)
    later(seconds=9)
    prove(client, code_of(app))
    assert is_in(client)


def test_wrong_passwords_lock_the_name_for_the_address(client, app, later, heard):
    for _ in range(5):
        answer = log_in(client, "root", "wrong")

    assert heard == ["failed"] * 5
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert log_in(client, "root").status_code == 429
    later(minutes=16)
    assert log_in(client, "root").status_code == 302


def test_wrong_codes_lock_it_as_well(client, app, later, heard):
    log_in(client, "root")
    for _ in range(5):
        later(seconds=30)
        answer = prove(client, "000000")

    assert answer.status_code == 429
    assert prove(client, code_of(app)).status_code == 429
    assert heard == ["failed"] * 5


def test_a_lock_holds_for_its_address_only(client, app):
    for _ in range(5):
        log_in(client, "root", "wrong")
    elsewhere = Client(REMOTE_ADDR="198.51.100.7")

    assert log_in(elsewhere, "root").status_code == 302


def test_a_header_that_anybody_can_send_gets_around_no_lock(client, app):
    for number in range(5):
        client.post(
            reverse("admin:login"),
            {"username": "root", "password": "wrong"},
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        )

    answer = client.post(
        reverse("admin:login"),
        {"username": "root", "password": PASSWORD},
        headers={"X-Forwarded-For": "198.51.100.99"},
    )

    assert answer.status_code == 429


def test_trying_one_password_on_many_names_locks_the_address(client, app):
    for number in range(50):
        answer = log_in(client, f"name{number}", "Summer2026!")

    assert answer.status_code == 429
    assert log_in(client, "root").status_code == 429


def test_a_lock_can_be_lifted(client, root, app):
    for _ in range(5):
        log_in(client, "root", "wrong")

    lift_locks(root)

    assert log_in(client, "root").status_code == 302


def test_nothing_that_was_typed_is_kept_of_a_failure(client, app):
    log_in(client, "root", "a secret of mine")
    log_in(client, "my password, in the wrong box", "root")
    log_in(client, "root")
    prove(client, "424242")

    kept = " ".join(str(row) for row in AccessAttempt.objects.values())
    kept += " ".join(str(row) for row in AuditEvent.objects.values())
    for typed in ("a secret of mine", "my password", "424242", "wrong box"):
        assert typed not in kept
    names = AccessAttempt.objects.values_list("username", flat=True)
    assert len(set(names)) == 2
    assert not any("root" in name for name in names)


def test_nothing_that_was_typed_as_a_name_reaches_a_log(client, app, caplog, capfd):
    with caplog.at_level(0):
        for _ in range(6):
            log_in(client, "my password, in the wrong box", "root")

    told = caplog.text + "".join(capfd.readouterr())
    assert "Too Many" in told or "Locking out" in told
    assert "my password" not in told


def test_a_name_is_locked_however_it_is_written(client, app):
    for name in ("root", "Root", " root ", "ROOT", "rooT"):
        log_in(client, name, "wrong")

    assert log_in(client, "root").status_code == 429


@pytest.mark.parametrize("name", ["login", "login_code", "enrol", "security"])
def test_no_page_is_kept_by_the_browser(client, root, app, name):
    log_in(client, "root")
    if name in ("enrol", "security"):
        prove(client, code_of(app))

    assert "no-store" in client.get(reverse(f"admin:{name}"))["Cache-Control"]


def test_a_part_of_a_page_leads_the_whole_page_away(client, root):
    client.force_login(root)

    answer = client.get("/admin/runs/run/", headers={"HX-Request": "true"})

    assert answer.status_code == 204
    assert answer["HX-Redirect"].startswith(reverse("admin:login"))
