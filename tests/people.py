"""People for tests: an administrator, and somebody who may only look."""

from __future__ import annotations

from django.contrib.auth.models import Permission
from django.test import Client

from apps.accounts.models import User

PASSWORD = "correct horse battery"


def administrator(name: str = "root") -> User:
    return User.objects.create_superuser(username=name, password=PASSWORD)


def person(name: str, *permissions: str) -> User:
    """Somebody on the staff with these permissions, such as `rules.run_rule`."""
    user = User.objects.create_user(username=name, password=PASSWORD, is_staff=True)
    for permission in permissions:
        app, _, codename = permission.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user


def viewer(name: str = "support") -> User:
    """Somebody who may look at everything and change nothing."""
    user = User.objects.create_user(username=name, password=PASSWORD, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return user


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client
