"""Two rules with everything that hangs on them, and the people who walk all addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Group, Permission
from django.test import Client

from apps.accounts.models import Grant, Level, ServiceAccount, StandardRole, Token, User
from apps.accounts.roles import ROLES
from apps.accounts.services import create_service_account, create_token, give_grant
from apps.alerts.models import Channel, Delivery, EscalationPolicy, Incident, Kind
from apps.api.models import OAuthClient
from apps.api.views.hub import HubDatasets
from apps.audit.models import AuditEvent, SavedFilter
from apps.core.clock import now
from apps.core.models import DataKey
from apps.engine.spec import CheckKind, CheckSpec
from apps.hub.models import HostedDataset, Mutation, Replica, RowScope
from apps.ledger.models import Change, Conflict, Rejection
from apps.ledger.selectors.record_family import Address
from apps.mappings.models import LookupTable
from apps.mappings.models import Mapping as MappingRow
from apps.mappings.services import save_lookup
from apps.rules.models import Rule, SyncDraft
from apps.runs.models import RestoreRequest, Run
from apps.runs.services import UndoScope
from apps.sources.models import Dataset, Drift, Field, Source
from tests.hub_world import in_use
from tests.people import administrator, person, signed_in
from tests.platforms import PLAIN_FIELDS, TwoWayPair
from tests.programs import Program, program

KEY = '["1"]'
SECRET = "canary-person"
"""Part of each personal value: no answer of the walk may hold it."""


@dataclass
class Realm:
    """A rule and what hangs on it: one row for each model that addresses name."""

    pair: TwoWayPair
    rows: dict[type, Any] = field(default_factory=dict)
    grants: dict[type, Grant] = field(default_factory=dict)

    @classmethod
    def build(cls, folder: Path, name: str) -> Realm:
        check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern=".*[0-6]@.*")
        pair = TwoWayPair(folder, name=name, fields=PLAIN_FIELDS, checks=[check])
        Field.objects.filter(name__in=("email", "mail")).update(personal_data="contact")
        for number in (1, 2, 7):
            pair.on_left(
                "INSERT INTO customers VALUES (?, ?, ?, ?, ?)",
                number,
                f"Name {number}",
                f"{SECRET}{number}@example.org",
                "1.50",
                None,
            )
        run = pair.run()
        for side, table in ((pair.on_left, "customers"), (pair.on_right, "clients")):
            column = "id" if table == "customers" else "client_id"
            mail = "email" if table == "customers" else "mail"
            side(f"UPDATE {table} SET {mail} = ? WHERE {column} = 2", f"{SECRET}{table}6@x.org")
        pair.rule.policy = "ask"
        pair.rule.save()
        pair.run()
        realm = cls(pair)
        realm._collect(run)
        return realm

    def _collect(self, run: Run) -> None:
        rule, mapping = self.pair.rule, self.pair.mapping
        asked = RestoreRequest.objects.create(
            rule=rule, scope=UndoScope(right_key=KEY).as_json(), reason="wrong"
        )
        drift = Drift.objects.create(
            source=mapping.left.source, dataset_name="customers", kind=Drift.Kind.FIELD_ADDED
        )
        self.rows = {
            Rule: rule,
            MappingRow: mapping,
            Source: mapping.left.source,
            Dataset: mapping.left,
            Field: mapping.left.fields.get(name="email"),
            Drift: drift,
            Run: run,
            RestoreRequest: asked,
            Change: Change.objects.filter(rule_id=rule.pk).earliest("id"),
            Conflict: Conflict.objects.get(rule_id=rule.pk),
            Rejection: Rejection.objects.get(rule_id=rule.pk),
            Incident: self._incident(rule),
        }
        self.rows[Delivery] = self.rows[Incident].deliveries.get()
        self._host(f"{rule.name} tasks")

    def _incident(self, rule: Rule) -> Incident:
        """One of the rule, of which somebody was told."""
        incident = Incident.objects.create(
            kind=Kind.STALE, fingerprint=f"stale|{rule.pk}|", rule=rule, title=rule.name,
            severity=2, last_seen_at=now(),
        )  # fmt: skip
        channel, _ = Channel.objects.get_or_create(name="Mail")
        Delivery.objects.create(incident=incident, channel=channel, occasion="step 1")
        return incident

    def _host(self, name: str) -> None:
        """A hub dataset with a conflict of two replicas, and somebody who sees some records."""
        waiting = in_use(name)
        self.rows |= {
            HostedDataset: waiting.hosted,
            HubDatasets: Dataset.objects.get(name=name),
            Mutation: waiting,
            Replica: waiting.replica,
            RowScope: waiting.hosted.row_scopes.get(),
        }

    @property
    def address(self) -> Address:
        return Address(self.pair.mapping.right_id, KEY)


@dataclass
class World:
    """mine: what people were granted; theirs: what nobody was; shared: what hangs on no rule."""

    mine: Realm
    theirs: Realm
    shared: dict[type, Any]
    people: dict[str, User | None]
    clients: dict[str, Client]
    programs: dict[str, Program]

    @classmethod
    def build(cls, folder: Path) -> World:
        mine, theirs = (Realm.build(folder, name) for name in ("mine", "theirs"))
        root = administrator()
        save_lookup("iso", {"Germany": "DE"}, actor=root)
        shared = {
            User: person("colleague", reaches_all=False),
            Group: Group.objects.create(name="Night shift"),
            LookupTable: LookupTable.objects.get(),
            AuditEvent: AuditEvent.objects.first(),
            SavedFilter: SavedFilter.objects.create(owner=root, name="x", query="action=x"),
            SyncDraft: SyncDraft.objects.create(owner=root),
            ServiceAccount: create_service_account("robot", actor=None),
            OAuthClient: OAuthClient.objects.create(
                name="Reports",
                client_type="confidential",
                authorization_grant_type="authorization-code",
                redirect_uris="https://reports.example/back",
                allowed_scopes=["runs:read"],
            ),
            DataKey: DataKey.objects.earliest("created_at"),
            Channel: Channel.objects.get(),
            EscalationPolicy: EscalationPolicy.objects.create(name="On call"),
        }
        shared[Token], _ = create_token(
            shared[ServiceAccount], name="nightly", scopes=["runs:read"], days=1, actor=None
        )
        for realm in (mine, theirs):
            for model in (Rule, Source, Dataset):
                obj = realm.rows[model]
                realm.grants[model] = give_grant(shared[User], obj, Level.SEE, actor=None)
        shared[Grant] = give_grant(shared[Group], mine.rows[Rule], Level.SEE, actor=None)
        people = _people(mine)
        clients = {name: signed_in(user) if user else Client() for name, user in people.items()}
        programs = {name: program(user) if user else Program("") for name, user in people.items()}
        programs["root"] = program(root)
        return cls(mine, theirs, shared, people, clients, programs)

    def row(self, model: type, realm: Realm) -> Any:
        return self.shared.get(model) or realm.rows[model]

    def columns(self) -> list[tuple[str, str, Realm]]:
        """Name of the column, who walks, and in which realm."""
        return [
            *((name, name, self.mine) for name in self.people),
            ("elsewhere", "one_rule", self.theirs),
        ]


def _people(mine: Realm) -> Mapping[str, User | None]:
    """Nobody, somebody without any right, each role, and who may do all to one rule only."""
    people: dict[str, User | None] = {
        "nobody": None,
        "newcomer": person("newcomer", reaches_all=False),
    }
    mapping = mine.pair.mapping
    granted = [mine.pair.rule, mapping.left.source, mapping.right.source, mine.rows[HubDatasets]]
    for role in ROLES:
        member = person(role.key, reaches_all=False)
        group = StandardRole.objects.get(key=role.key).group
        member.groups.add(group)
        for obj in granted:
            give_grant(member, obj, Level.CHANGE, actor=None)
        people[role.key] = member
    able = person("able", reaches_all=False)
    able.user_permissions.set(Permission.objects.exclude(codename="reach_all_objects"))
    give_grant(able, mine.pair.rule, Level.CHANGE, actor=None)
    people["one_rule"] = able
    return people
