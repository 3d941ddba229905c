"""People for tests: an administrator, and somebody who may only look."""

from __future__ import annotations

from django.contrib.auth.models import Permission
from django.db.models import Q
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.oath import TOTP

from apps.accounts.models import AuthenticatorApp, User
from apps.core.clock import now
from apps.core.reauthentication import CONFIRMED_AT
from apps.core.selectors import REACH_ALL

PASSWORD = "correct horse battery"


def administrator(name: str = "root") -> User:
    return User.objects.create_superuser(username=name, password=PASSWORD)


def person(name: str, *permissions: str, reaches_all: bool = True) -> User:
    """Somebody on the staff with these permissions, such as `rules.run_rule`, on all objects.

    reaches_all: False for somebody who reaches only what is granted.
    """
    user = User.objects.create_user(username=name, password=PASSWORD, is_staff=True)
    for permission in (*permissions, *([REACH_ALL] if reaches_all else [])):
        app, _, codename = permission.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user


def viewer(name: str = "support") -> User:
    """Somebody who may look at everything and change nothing."""
    user = User.objects.create_user(username=name, password=PASSWORD, is_staff=True)
    looking = Q(codename__startswith="view_") | Q(codename="reach_all_objects")
    user.user_permissions.set(Permission.objects.filter(looking))
    return user


def enrolled(user: User) -> AuthenticatorApp:
    """The person's authenticator app; enrolled now where there is none."""
    app = AuthenticatorApp.objects.filter(user=user, confirmed=True).first()
    if app is None:
        app = AuthenticatorApp.with_new_seed(user=user, name="Phone")
        app.save()
    return app


def code_of(app: AuthenticatorApp) -> str:
    """What the app shows now; where that was used already, what it shows next."""
    clock = TOTP(app.seed, drift=app.drift)
    clock.time = now().timestamp()
    app.refresh_from_db()
    if clock.t() <= app.last_step:
        clock.drift += app.last_step + 1 - clock.t()
    return f"{clock.token():06}"


def signed_in(user: User) -> Client:
    """A browser in which the person has given password and second factor just now."""
    client = Client()
    client.force_login(user)
    session = client.session
    session[DEVICE_ID_SESSION_KEY] = enrolled(user).persistent_id
    session[CONFIRMED_AT] = now().timestamp()
    session.save()
    return client


def log_in(client: Client, name: str, password: str = PASSWORD, **fields: str) -> HttpResponse:
    """The first step of the sign-in page; what it answers."""
    return client.post(reverse("admin:login"), {"username": name, "password": password, **fields})


def prove(client: Client, code: str, **fields: str) -> HttpResponse:
    """The second step."""
    return client.post(reverse("admin:login_code"), {"code": code, **fields})
