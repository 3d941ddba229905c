"""Every address, action, inline, autocomplete and verb, as every role and as nobody.

What comes of each is in `expected.txt`, which is reviewed like code. A new address that is not
listed there fails this test. Write the file anew with LOCKSTEP_TEST_WRITE_WALK=1, then read what
changed.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import RequestFactory

from apps.console.command_line.parser import add_verbs
from tests.walk.routes import (
    Route,
    asked_with,
    bulk_offered,
    every_route,
    path_of,
    sent_to_the_api,
)
from tests.walk.world import SECRET, Realm, World

EXPECTED = Path(__file__).with_name("expected.txt")
HEAD = """\
# What comes of each address, action, inline and verb. Reviewed like code; `test_walk.py` compares.
#
#   ok   answered, or done and redirected
#   in   sent to sign in; a program: 401
#   no   refused (403)
#   --   not there, or not for this person (404)
#   405  not by this method
#   rwad on an inline: may see, change, add, delete lines
#
# Roles were granted the rule, and both sources, up to Change. `one_rule` holds every permission
# but that to reach all objects, and was granted one rule only; `elsewhere` is the same person at
# the objects of another rule. A dot: the address names no object, so it is the same as before.
"""


class Refuse(Exception):
    """Undoes what a request has done."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.build(tmp_path)


def verdict(world: World, route: Route, method: str, who: str, realm: Realm) -> str:
    """What one person gets; nothing of it stays."""
    client, path = world.clients[who], path_of(route, world, realm)
    cookies = client.cookies.copy()
    found = "?"
    try:
        with transaction.atomic():
            answer = asked(world, route, method, who, realm)
            found = _word(answer, route)
            assert SECRET not in _text(answer), f"{who} reads a personal value: {method} {path}"
            raise Refuse
    except Refuse:
        client.cookies = cookies
        return found


def asked(world: World, route: Route, method: str, who: str, realm: Realm) -> Any:
    """The answer to a person's browser, or to a program with the person's token."""
    path = path_of(route, world, realm)
    if not route.operations:
        client, data = world.clients[who], asked_with(route, method, world, realm)
        return client.get(path, data) if method == "GET" else client.post(path, data)
    program, body = world.programs[who], sent_to_the_api(route, method, world, realm)
    if method == "GET":
        return program.get(path, **body)
    if method == "POST":
        return program.post(path, body)
    return program.patch(path, body, {"If-Match": world.programs["root"].get(path)["ETag"]})


def _text(answer: Any) -> str:
    return "" if answer.streaming else answer.content.decode(errors="replace")


def _word(answer: Any, route: Route) -> str:
    status = answer.status_code
    if status in (301, 302):
        if "/admin/login/" in answer.url:
            return "in"
        if answer.url == "/admin/" and route.model is not None:
            return "--"  # Django sends away who asks for what is not there
        return "no" if route.variant.startswith("action ") else "ok"
    if route.variant.startswith("action ") and status == 200:
        return "ok" if bulk_offered(answer) else "no"
    words = {401: "in", 403: "no", 404: "--"}
    return words.get(status, "ok" if status < 300 else str(status))


def methods(route: Route) -> tuple[str, ...]:
    if route.variant.startswith("action "):
        return ("POST",)
    if route.operations:
        return route.operations
    return ("GET",) if route.name == "admin:autocomplete" else ("GET", "POST")


def walked(world: World) -> Iterator[tuple[str, list[str]]]:
    for route in every_route():
        for method in methods(route):
            yield (
                f"{method:4} {route.label}",
                [
                    "."
                    if column == "elsewhere" and not (route.names_an_object or route.variant)
                    else verdict(world, route, method, who, realm)
                    for column, who, realm in world.columns()
                ],
            )


def inlines(world: World) -> Iterator[tuple[str, list[str]]]:
    request = RequestFactory().get("/")
    for model, model_admin in admin.site._registry.items():
        for inline_class in model_admin.inlines:
            inline = inline_class(model, admin.site)
            cells = []
            for _, who, realm in world.columns():
                request.user = world.people[who] or _anonymous()
                cells.append(_rights(inline, request, world.row(model, realm)))
            name = f"{model._meta.label_lower}/{inline_class.model._meta.model_name}"
            yield f"INL  {name}", cells


def _anonymous() -> Any:
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


def _rights(inline: Any, request: Any, obj: Any) -> str:
    checks = (
        ("r", inline.has_view_permission),
        ("w", inline.has_change_permission),
        ("a", inline.has_add_permission),
        ("d", inline.has_delete_permission),
    )
    return "".join(letter if check(request, obj) else "-" for letter, check in checks)


def verbs() -> Iterator[tuple[str, list[str]]]:
    """The command line acts as the system: whoever has a shell there needs no role."""
    parser = ArgumentParser(prog="lockstep")
    add_verbs(parser)
    yield from ((f"CLI  {name}", ["system"]) for name in _verbs(parser, "lockstep"))


def _verbs(parser: ArgumentParser, prefix: str) -> Iterator[str]:
    groups = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
    for group in groups:
        for name, verb in group.choices.items():
            yield from _verbs(verb, f"{prefix} {name}")
    if not groups:
        yield prefix


def table(world: World) -> dict[str, str]:
    lines = {}
    for label, cells in (*walked(world), *inlines(world), *verbs()):
        assert label not in lines, f"twice: {label}"
        lines[label] = " ".join(f"{cell:>6}" for cell in cells)
    return lines


def read() -> dict[str, str]:
    lines = EXPECTED.read_text().splitlines() if EXPECTED.exists() else []
    rows = (line.rsplit("|", 1) for line in lines if "|" in line and not line.startswith("#"))
    return {label.strip(): " ".join(f"{c:>6}" for c in cells.split()) for label, cells in rows}


def write(found: dict[str, str], world: World) -> None:
    names = " ".join(f"{column[:6]:>6}" for column, _, _ in world.columns())
    width = max(len(label) for label in found)
    rows = [f"{label:{width}} | {cells}" for label, cells in found.items()]
    EXPECTED.write_text(f"{HEAD}\n# {'':{width - 2}} | {names}\n" + "\n".join(rows) + "\n")


@pytest.mark.django_db(transaction=True)
def test_everybody_gets_everywhere_what_is_written(world, capsys):
    found = table(world)
    if os.environ.get("LOCKSTEP_TEST_WRITE_WALK"):
        write(found, world)
    expected = read()

    unlisted = sorted(found.keys() - expected.keys())
    gone = sorted(expected.keys() - found.keys())
    differing = [
        f"{label}\n  expected {expected[label]}\n  found    {found[label]}"
        for label in found.keys() & expected.keys()
        if found[label] != expected[label]
    ]
    with capsys.disabled():
        cells = sum(len(line.split()) for line in found.values())
        print(f"\nwalked {len(found)} addresses and {cells} outcomes; {len(unlisted)} unlisted")
    assert unlisted == [], "list them in expected.txt with what each role is to get"
    assert gone == [], "these are no longer there"
    assert differing == [], "\n".join(differing)
