"""Where an act comes from: kept beside the code that acts, not handed through every call."""

from __future__ import annotations

import getpass
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from uuid import uuid4

from django.db import models
from django.http import HttpRequest

from apps.core.addresses import client_address


class Channel(models.TextChoices):
    WEB = "web", "Web"
    API = "api", "API"
    COMMAND = "command", "Command line"
    SYSTEM = "system", "Lockstep itself"


@dataclass(frozen=True, slots=True)
class Origin:
    """Channel, address, request and program of an act.

    operator: who typed a command, as the operating system knows them; empty elsewhere.
    credential: what a program acts by, such as `token 0198…`; empty for people.
    """

    channel: Channel = Channel.SYSTEM
    address: str = ""
    request_id: str = ""
    user_agent: str = ""
    operator: str = ""
    credential: str = ""


_SYSTEM = Origin()
_origin: ContextVar[Origin] = ContextVar("audit_origin", default=_SYSTEM)


def current_origin() -> Origin:
    return _origin.get()


@contextmanager
def acting_from(origin: Origin) -> Iterator[Origin]:
    """Everything that is recorded within comes from `origin`."""
    token = _origin.set(origin)
    try:
        yield origin
    finally:
        _origin.reset(token)


def acting_by(credential: str) -> None:
    """From here on, what is recorded is done by a program with this credential.

    Within `acting_from`, which ends it.
    """
    _origin.set(replace(current_origin(), channel=Channel.API, credential=credential))


def origin_of(request: HttpRequest) -> Origin:
    """Where a request comes from, with a request id that is new.

    The address is the client's, as sign-in takes it (`core.addresses`).
    """
    return Origin(
        channel=Channel.WEB,
        address=client_address(request) or "",
        request_id=uuid4().hex,
        user_agent=request.META.get("HTTP_USER_AGENT", ""),
    )


def plain_address(text: str) -> str:
    """An IP address as it is kept, however it is spelt; empty where it is none."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return ""


def command_origin(program: str) -> Origin:
    """Where a command comes from: who typed it is who the operating system says."""
    try:
        operator = getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        operator = str(os.getuid())
    return Origin(channel=Channel.COMMAND, user_agent=program, operator=operator)
