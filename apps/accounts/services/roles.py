"""The roles that Lockstep brings: made once, and given the permissions of each room once."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import Group, Permission
from django.db import transaction

from apps.accounts.models import StandardRole
from apps.accounts.roles import ROLES, Role
from apps.accounts.selectors import rights_of
from apps.accounts.services.people import record_rights


@transaction.atomic
def hand_out(room: str) -> None:
    """Give each standard role those permissions of a room that it comes with and never had.

    room: the label of an application whose permissions exist. Roles that are not there yet are
    made; a name that is taken is left to whoever took it. What was handed out before is not
    touched, so that this may be repeated.
    """
    every = Permission.objects.filter(content_type__app_label=room)
    found = {f"{room}.{row.codename}": row for row in every.order_by("codename")}
    known = StandardRole.objects.select_related("group").in_bulk()
    for role in ROLES:
        standard = known.get(role.key) or _made(role)
        _hand_over(standard, {name: row for name, row in found.items() if role.wants(name)})


def _made(role: Role) -> StandardRole:
    group, is_new = Group.objects.get_or_create(name=role.name)
    if not is_new:
        group = Group.objects.create(name=f"{role.name} (Lockstep)")
    return StandardRole.objects.create(key=role.key, group=group)


def _hand_over(standard: StandardRole, wanted: dict[str, Permission]) -> None:
    missing = wanted.keys() - set(standard.handed_out)
    if not missing or standard.group is None:
        return
    room = next(iter(wanted)).partition(".")[0]
    is_later = any(name.startswith(f"{room}.") for name in standard.handed_out)
    before = rights_of(standard.group)
    standard.group.permissions.add(*_of(wanted, missing))
    standard.handed_out = sorted({*standard.handed_out, *missing})
    standard.save(update_fields=["handed_out"])
    if is_later:  # what a role comes with from the start is in the reference
        record_rights(standard.group, before, actor=None)


def _of(wanted: dict[str, Permission], names: Iterable[str]) -> list[Permission]:
    return [wanted[name] for name in sorted(names)]
