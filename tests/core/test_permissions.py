"""Every service asks whether the actor may do this to this object, whoever calls it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.core.exceptions import PermissionDenied
from django.db.models import Q

from apps.accounts.models import User
from apps.connectors.base import DatasetSchema
from apps.core.selectors import require
from apps.engine.spec import RuleSpec
from apps.mappings import services as mappings
from apps.mappings.models import LookupTable, Mapping
from apps.mappings.selectors import mapping_spec
from apps.rules import services as rules
from apps.rules.models import Rule, SyncDraft
from apps.rules.selectors import rules as scoped_rules
from apps.sources import services as sources
from apps.sources.models import Drift, Source
from tests.people import administrator, person
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = pytest.mark.django_db
SERVICES = (sources, mappings, rules)
UNASKED = {
    # They say nothing that is not stored, and are asked for by runs.
    (mappings, "publish"),
    (rules, "publish"),
    # They are such questions themselves.
    (mappings, "require_author"),
    (mappings, "require_editor"),
}
PURE = {
    (sources, "split_settings"),
    (sources, "kept_secrets"),
    (sources, "says_the_same"),
    (mappings, "validate_mapping"),
    (mappings, "content_digest"),
    (rules, "spec_of"),
    (rules, "validate_rule"),
}

NOTED = {(sources, "note_row_count")}
"""What a worker notes of what it has seen, on nobody's behalf."""


class World:
    """A rule between two sources, and what else services are about."""

    def __init__(self, folder: Path) -> None:
        pair = Pair(folder, fields=PLAIN_FIELDS)
        self.rule, self.mapping = pair.rule, pair.mapping
        self.left, self.right = pair.mapping.left, pair.mapping.right
        self.source = self.right.source
        self.settings = self.source.settings
        self.drift = Drift.objects.create(source=self.source, dataset_name="clients")
        LookupTable.objects.create(name="known")

    def new_source(self) -> Source:
        return Source(name="new", connector="sqlite")

    def new_mapping(self) -> Mapping:
        return Mapping(name="new", left=self.left, right=self.right)

    def new_shape(self) -> DatasetSchema:
        shape = self.left.schema()
        return DatasetSchema(name="copies", fields=shape.fields, key=shape.key)

    def draft(self, actor: User | None) -> SyncDraft:
        owner = actor if actor is not None else person("owner")
        return SyncDraft.objects.create(owner=owner)


@dataclass(frozen=True)
class Case:
    """A call of a service and the permissions it needs; `a|b` stands for either."""

    service: Callable[..., Any]
    what: str
    needs: tuple[str, ...]
    call: Callable[[World, User | None], Any]

    def __str__(self) -> str:
        room = self.service.__module__.split(".")[1]
        return f"{room}.{self.service.__name__}-{self.what}"

    def __call__(self, world: World, actor: User | None) -> None:
        self.call(world, actor)


CASES = [
    Case(
        sources.save_source,
        "new",
        ("sources.add_source",),
        lambda w, a: sources.save_source(w.new_source(), w.settings, actor=a),
    ),
    Case(
        sources.save_source,
        "stored",
        ("sources.change_source",),
        lambda w, a: sources.save_source(w.source, w.settings, actor=a),
    ),
    Case(
        sources.check_settings,
        "new",
        ("sources.add_source",),
        lambda w, a: sources.check_settings("sqlite", w.settings, actor=a),
    ),
    Case(
        sources.check_settings,
        "stored",
        ("sources.change_source", "sources.check_source"),
        lambda w, a: sources.check_settings("sqlite", w.settings, w.source, actor=a),
    ),
    Case(
        sources.check_source,
        "stored",
        ("sources.check_source",),
        lambda w, a: sources.check_source(w.source, actor=a),
    ),
    Case(
        sources.set_source_paused,
        "stored",
        ("sources.pause_source",),
        lambda w, a: sources.set_source_paused(w.source, True, actor=a),
    ),
    Case(
        sources.discover,
        "stored",
        ("sources.discover_source",),
        lambda w, a: sources.discover(w.source, actor=a),
    ),
    Case(
        sources.store_discovery,
        "stored",
        ("sources.discover_source",),
        lambda w, a: sources.store_discovery(w.source, [w.new_shape()], actor=a),
    ),
    Case(
        sources.refresh_dataset,
        "stored",
        ("sources.change_dataset",),
        lambda w, a: sources.refresh_dataset(w.right, actor=a),
    ),
    Case(
        sources.save_dataset_facts,
        "stored",
        ("sources.change_dataset",),
        lambda w, a: sources.save_dataset_facts(w.right, {"owner": "Data team"}, actor=a),
    ),
    Case(
        sources.acknowledge_drift,
        "stored",
        ("sources.change_drift",),
        lambda w, a: sources.acknowledge_drift(w.drift, actor=a),
    ),
    Case(
        sources.create_dataset,
        "new",
        ("sources.add_dataset", "sources.view_source"),
        lambda w, a: sources.create_dataset(w.source, w.new_shape(), actor=a),
    ),
    Case(
        sources.store_dataset,
        "new",
        ("sources.add_dataset", "sources.view_source"),
        lambda w, a: sources.store_dataset(w.source, w.new_shape(), actor=a),
    ),
    Case(
        mappings.save_mapping,
        "new",
        ("mappings.add_mapping",),
        lambda w, a: mappings.save_mapping(w.new_mapping(), PLAIN_FIELDS, ["client_id"], actor=a),
    ),
    Case(
        mappings.save_mapping,
        "stored",
        ("mappings.change_mapping",),
        lambda w, a: mappings.save_mapping(w.mapping, PLAIN_FIELDS, ["client_id"], actor=a),
    ),
    Case(
        mappings.suggest,
        "stored",
        ("sources.view_dataset",),
        lambda w, a: mappings.suggest(w.left, w.right, actor=a),
    ),
    Case(
        mappings.create_target,
        "new",
        ("sources.add_dataset", "sources.view_dataset", "sources.view_source"),
        lambda w, a: mappings.create_target(w.left, w.source, "copies", actor=a),
    ),
    Case(
        mappings.preview,
        "unsaved",
        ("sources.view_dataset", "mappings.add_mapping|mappings.change_mapping"),
        lambda w, a: mappings.preview(mapping_spec(w.mapping), RuleSpec(), w.left, actor=a),
    ),
    Case(
        mappings.preview_back,
        "unsaved",
        ("sources.view_dataset", "mappings.add_mapping|mappings.change_mapping"),
        lambda w, a: mappings.preview_back(mapping_spec(w.mapping), w.left, w.right, actor=a),
    ),
    Case(
        mappings.check_matches,
        "unsaved",
        ("sources.view_dataset", "mappings.add_mapping|mappings.change_mapping"),
        lambda w, a: mappings.check_matches(mapping_spec(w.mapping), w.left, w.right, actor=a),
    ),
    Case(
        mappings.save_lookup,
        "new",
        ("mappings.add_lookuptable",),
        lambda w, a: mappings.save_lookup("new", {"a": "b"}, actor=a),
    ),
    Case(
        mappings.save_lookup,
        "stored",
        ("mappings.change_lookuptable",),
        lambda w, a: mappings.save_lookup("known", {"a": "b"}, actor=a),
    ),
    Case(
        rules.save_rule,
        "new",
        ("rules.add_rule",),
        lambda w, a: rules.save_rule(Rule(name="new", mapping=w.mapping), (), actor=a),
    ),
    Case(
        rules.save_rule,
        "stored",
        ("rules.change_rule",),
        lambda w, a: rules.save_rule(w.rule, (), actor=a),
    ),
    Case(
        rules.set_enabled,
        "stored",
        ("rules.change_rule",),
        lambda w, a: rules.set_enabled(w.rule, True, actor=a),
    ),
    Case(
        rules.set_rule_paused,
        "stored",
        ("rules.pause_rule",),
        lambda w, a: rules.set_rule_paused(w.rule, True, actor=a),
    ),
    Case(
        rules.start_draft,
        "new",
        ("rules.add_rule", "mappings.add_mapping"),
        lambda w, a: rules.start_draft(actor=a or administrator()),
    ),
    Case(
        rules.save_draft,
        "own",
        (),
        lambda w, a: rules.save_draft(w.draft(a), actor=a, step="key"),
    ),
]
NEEDS = [
    pytest.param(case, need, id=f"{case}-without-{need}") for case in CASES for need in case.needs
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def of_permission(name: str) -> Q:
    app, _, codename = name.partition(".")
    return Q(content_type__app_label=app, codename=codename)


@pytest.mark.parametrize(("case", "need"), NEEDS)
def test_who_may_do_everything_but_this_is_refused(world: World, case: Case, need: str):
    actor = person("actor")
    lacking = Q()
    for name in need.split("|"):
        lacking |= of_permission(name)
    actor.user_permissions.set(Permission.objects.exclude(lacking))
    with pytest.raises(PermissionDenied, match=r"^you may n"):
        case(world, actor)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_who_may_do_only_this_does_it(world: World, case: Case):
    case(world, person("actor", *(need.split("|")[0] for need in case.needs)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_system_itself_may(world: World, case: Case):
    case(world, None)


def test_only_the_owner_writes_a_draft(world: World):
    other = person("other")
    other.user_permissions.set(Permission.objects.all())
    with pytest.raises(PermissionDenied, match=r"^you may not change this"):
        rules.save_draft(world.draft(None), actor=other, step="key")


def test_nobody_in_particular_and_who_has_left_are_refused(world: World):
    gone = person("gone", "rules.change_rule")
    gone.is_active = False
    gone.save()
    for actor in (gone, AnonymousUser()):
        with pytest.raises(PermissionDenied):
            require(actor, scoped_rules, "change", world.rule)


def public_functions(*, asking: bool) -> set[tuple[Any, str]]:
    """The services of all rooms that take an actor, or those that do not."""
    return {
        (module, name)
        for module in SERVICES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and ("actor" in inspect.signature(function).parameters) is asking
    }


def test_every_service_with_an_actor_is_among_the_cases():
    asked = {(inspect.getmodule(case.service), case.service.__name__) for case in CASES}
    assert public_functions(asking=True) == asked | UNASKED


def test_only_what_writes_nothing_has_no_actor():
    assert public_functions(asking=False) == PURE | NOTED
