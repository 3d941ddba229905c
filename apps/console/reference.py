"""The pages of `docs/reference` that follow from the code: `manage.py write_reference` writes them.

A test fails when one is out of date.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from pydantic.fields import FieldInfo

from apps.accounts.roles import ROLES
from apps.api.document import as_yaml
from apps.connectors.base import Capabilities
from apps.connectors.registry import connector_class, connector_names, secret_names
from apps.console.command_line.parser import add_verbs
from apps.engine.functions import FUNCTIONS, REASONS
from apps.rules.configuration.schema import Document

FOLDER = Path(settings.BASE_DIR) / "docs" / "reference"
GENERATED = "<!-- Written by `manage.py write_reference`; change the code instead. -->\n"


def configuration_schema() -> str:
    """JSON Schema of a configuration file, for editors."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Document.model_json_schema(by_alias=True),
        "title": "Lockstep configuration",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


EXPRESSIONS_HEAD = """# Expressions

Field expressions, filters and checks are SQL scalar expressions over the fields of **one** record:
field expressions and filters read left fields, checks read right fields.

```sql
concat(trim(FirstName), ' ', upper(LastName))
CASE WHEN status = 'active' THEN 'customer' ELSE 'prospect' END
lookup('countries', upper(trim(country)))
CAST(quantity * unit_price AS DECIMAL(12, 2))
```

- **Fields** are written by name, in double quotes where the name is no plain word: `"Unit price"`.
- **Texts** stand in single quotes, `''` is a quote inside one.
- **Operators**: `+ - * / // %`, `||` joins texts, `= <> < <= > >=`, `AND OR NOT`, `IS NULL`,
  `IS DISTINCT FROM`, `BETWEEN`, `IN (…)`, `LIKE`, `ILIKE`, `CASE WHEN … THEN … ELSE … END`,
  `AT TIME ZONE`.
- **Casts**: `CAST(value AS type)` and `TRY_CAST` (NULL where it does not fit) to boolean, bigint,
  decimal(p, s), double, varchar, blob, date, time, timestamp, timestamptz, uuid, json.
- **NULL** in, NULL out, except where a function says otherwise. A check that gives NULL counts as
  passed; a filter that gives NULL leaves the record out.
- An expression that fails for one record (a text that is no number, say) rejects that record.

Why only these functions: [the safety of expressions](../explanation/safety-of-expressions.md).

## Functions

| function | gives |
|---|---|
"""


def expressions() -> str:
    lines = [f"| `{name}` | {_cell(text)} |" for name, text in FUNCTIONS.items()]
    reasons: dict[str, list[str]] = {}
    for name, reason in REASONS.items():
        reasons.setdefault(reason, []).append(f"`{name}`")
    left_out = [f"- {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return "\n".join(
        [GENERATED + EXPRESSIONS_HEAD + "\n".join(lines), "", "## Left out", "", *left_out, ""]
    )


CONNECTORS_HEAD = """# Connectors

A connector is the code that talks to one kind of source. Its settings are the same in the admin's
form, in a [configuration file](configuration.md) and in the code. Secrets are stored encrypted and
never shown again. A Python package adds a connector through an entry point in the group
`lockstep.connectors` that names its `apps.connectors.base.Connector` subclass.

## What a write gives back

Two-way sync compares each side with what that side held when both last agreed, so a connector says
what a write made of a record. What is not said is taken to be what was sent.

- **The record** (`returns_stored`): `WriteSession.apply(..., returning=fields)` gives the fields of
  each change as the target holds them at the end of the transaction, after its triggers, defaults,
  computed fields and types. A change whose record cannot be told (a trigger moves it to another
  key, a value has no neutral form) is taken back and rejected.
- **The key** (`server_assigned_keys`): an insert without key fields leaves the key to the target
  (serial, identity, AUTO_INCREMENT, rowid, a default, a trigger) and gives it back. After a crash
  the same insert, marked `in_doubt`, finds the record that got through; match fields find one too.
  On MySQL, which cannot return it, the key has to be AUTO_INCREMENT.
- **In time** (`note`): what a batch comes to is told before it is committed, so that it is known
  even if the worker is lost before it has settled the batch. What was not told was not written.
- **Unique values** (`exchanges`): records of a batch may take the values that others of it give up,
  in a chain or in a circle, though each changes other fields (`ChangeBatch.written`).
- **References** within a dataset may go in any order within a batch. Records in a circle are
  written by PostgreSQL and SQLite; MySQL and MariaDB check each record and refuse them, and do not
  delete a record that refers to itself.

## How a dataset is filled

A first load into an empty dataset needs no comparison, so some connectors take it whole.

- **A load** (`load`): `Connector.load_session` takes the target's lock, keeps everybody else from
  writing, and puts all records in within one transaction: readers see none of them, or all. It
  refuses a target on which something acts (a trigger, a rule, row security, a partition), and it
  is over, with nothing left behind, as soon as one value does not fit as it is: no text is cut and
  no number rounded. The run then goes record by record, and says which ones are at fault. A load
  may take longer than a lease that is renewed; when it is not, the statement is cancelled.
- **An export** (`exports`): `Connector.export` gives all records in the format that a load takes
  from the wire, so that their bytes pass untouched, and cuts the keys out of them (whole numbers,
  texts and UUIDs). Renames and casts are part of the source's query; a cast that might alter a
  value is refused. The target's lengths and scales are not part of the format: whoever relays
  makes sure that the target's types hold the source's (`NeutralType.holds`).
- **PostgreSQL** loads booleans, numbers, texts, bytes, dates, times, UUIDs, JSON, enumerations and
  arrays of all but the last by binary COPY. It relays other types that every server has (network
  addresses, ranges, intervals) too, and refuses to load them from records.
- **MySQL and MariaDB** load by `LOAD DATA LOCAL`, and count its warnings: one of them takes the
  whole load back. What they need for it is told in
  [connect MySQL or MariaDB](../how-to/connect-mysql.md#full-loads).

The suite `apps.connectors.testing.ConformanceSuite` holds a connector to all of it.

## Parts of a dataset

A large run is cut into partitions, and both sides must read the same ones
([how runs share sources and workers](../explanation/sharing.md)).

| capability | what `Connector.read` can be asked for | who has it |
|---|---|---|
| `key_ranges` | a range of a key of one integer | SQLite, PostgreSQL, MySQL and MariaDB |
| `key_spans` | a range of any key that all platforms order alike | PostgreSQL, MySQL and MariaDB |
| `key_shares` | the records whose key's texts have some hash | PostgreSQL, MySQL and MariaDB |

`Connector.split` gives the bounds of ranges of about equal numbers of records. Texts are ordered by
their UTF-8 bytes, whatever their collation.

## Digests of records

A connector that computes digests (`checksum`) lets two datasets be compared without being read; a
source that computes none is read, and its digests are computed here. `Connector.digest_forms` says
in which forms a field's text can be written, `Connector.digest_session` opens one snapshot and
answers with counts, sums and digests of key ranges. The forms and the encoding of a record are
defined in `apps.connectors.digests`; [how differences are
found](../explanation/finding-differences.md) says what they are for.

| type | PostgreSQL | MySQL or MariaDB | read |
|---|---|---|---|
| boolean, integer, decimal, text, bytes, uuid, dates and times | yes | yes | yes |
| float | yes | only with another MySQL or MariaDB | yes |
| json | only with another PostgreSQL | only with another MySQL or MariaDB | no |
| array | only with another PostgreSQL | has none | no |

Key fields can be of any type but float, json, array and unbounded decimal, and may not be empty.
An index finds a key range where it orders keys as their bytes do. Text keys of another collation
than `C` (PostgreSQL) or a binary one without padding (`utf8mb4_0900_bin`, `utf8mb4_nopad_bin`), and
UUID keys of MariaDB, make each step of a comparison read the table once; in PostgreSQL an index on
`(key COLLATE "C")` avoids that.

"""
_CAPABILITIES = {
    "write": "can be written",
    "cursor": "reads only what lies after a cursor value",
    "key_lookup": "reads given keys without a full scan",
    "checksum": "computes digests of records, so that they can be compared unread",
    "transactions": "writes a batch whole or not at all",
    "load": "fills an empty dataset in one transaction",
    "server_assigned_keys": "tells the keys that it assigns",
    "returns_stored": "tells what it makes of a record",
    "exchanges": "lets the records of a batch pass unique values on",
    "target_lock": "writers exclude each other through the target",
    "delete": "can delete",
    "compare_and_set": "compares and writes in one step",
    "create_dataset": "creates missing datasets",
    "inferred_types": "types may be inferred from values",
}


def connectors() -> str:
    """Settings and capabilities of the connectors that come with Lockstep."""
    pages = [_connector(name) for name in connector_names()]
    return GENERATED + CONNECTORS_HEAD + "\n".join(pages)


def _connector(name: str) -> str:
    connector = connector_class(name)
    secrets = secret_names(name)
    rows = [
        f"| `{key}` | {_default(info, key in secrets)} | {_cell(_meaning(info))} |"
        for key, info in connector.settings_model.model_fields.items()
    ]
    head = f"## {connector.label} (`{name}`)\n\n{_able(connector.capabilities)}\n"
    return "\n".join([head, "| setting | default | meaning |", "|---|---|---|", *rows, ""])


def _able(capabilities: Capabilities) -> str:
    able = [text for name, text in _CAPABILITIES.items() if getattr(capabilities, name, False)]
    return f"It {'; '.join(able)}." if able else "It is read only."


def _default(info: FieldInfo, secret: bool) -> str:
    if secret:
        return "none, secret"
    if info.is_required():
        return "required"
    default = getattr(info.default, "value", info.default)
    if default in (None, "", ()):
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _meaning(info: FieldInfo) -> str:
    return ": ".join(part for part in (info.title, info.description) if part)


COMMAND_LINE_HEAD = """# Command line

`python manage.py lockstep VERB` does from a shell what the admin does. It acts as the platform
itself, so whoever can run it can do everything. With `--json` each verb prints one JSON document
on standard output, errors included (`{"error": {"code": …, "message": …, "where": …,
"remedy": …}}`). Without it, an error is one line on standard error that says what, where, and what
to do.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed or refused |
| 2 | wrong usage, or no such rule or source |
| 3 | done with rejections, or the plan waits for approval |

`run --wait` and `plan --wait` wait for the workers. When no worker takes a run within three
seconds, the command does the work itself, so that they work without `make run` too. Stopping the
command with Ctrl-C does not cancel the run: workers go on with it.

On a terminal a bar shows phase, rate and the estimated time that is left; otherwise each phase is
a line.

"""


def command_line() -> str:
    """Every verb with its arguments."""
    parser = ArgumentParser(prog="lockstep")
    add_verbs(parser)
    return GENERATED + COMMAND_LINE_HEAD + "\n".join(_verbs(parser, "lockstep"))


def _verbs(parser: ArgumentParser, prefix: str) -> Iterator[str]:
    for group in parser._actions:
        if isinstance(group, _SubParsersAction):
            for name, verb in group.choices.items():
                if any(isinstance(action, _SubParsersAction) for action in verb._actions):
                    yield from _verbs(verb, f"{prefix} {name}")
                else:
                    yield _verb(verb, f"{prefix} {name}")


def _verb(verb: ArgumentParser, name: str) -> str:
    words: list[str] = []
    details: list[str] = []
    for action in verb._actions:
        if action.dest in ("help", "as_json"):
            continue
        metavar = str(action.metavar or "")
        if action.option_strings:
            word = f"{action.option_strings[0]} {metavar}".strip()
            words.append(f"[{word}]")
        else:
            word = metavar + (" …" if action.nargs == "*" else "")
            words.append(f"[{word}]" if action.nargs in ("*", "?") else word)
        if action.help:
            details.append(f"- `{word}`: {action.help}")
    usage = " ".join([name, *words, "[--json]"])
    parts = [f"## {name}", "", str(verb.description), "", f"    {usage}", ""]
    return "\n".join([*parts, *details, *([""] if details else [])])


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


ROLES_HEAD = """# Roles

Lockstep brings these roles as groups (**Roles** in the sidebar). They may be renamed, changed and
deleted: each permission is handed out once, so what an administrator has taken away stays away. A
later version hands out only permissions that are new.

A role says **what** may be done. To **which** sources, datasets and rules is said by
[grants](../how-to/grants.md); only those who hold `core.reach_all_objects` need none.
Administrators in the narrow sense (“superuser status”) may do everything, whatever their roles.
"""

PERMISSIONS_HEAD = """
## Permissions

Whoever holds `accounts.assign_rights` gives roles and permissions, but none that this person does
not hold.
"""


def roles() -> str:
    """The standard roles, and which permission each comes with."""
    lines = [GENERATED, ROLES_HEAD, "| role | is for |", "|---|---|"]
    lines += [f"| **{role.name}** | {role.purpose} |" for role in ROLES]
    lines += [PERMISSIONS_HEAD, "| permission | says | " + " | ".join(r.name for r in ROLES) + " |"]
    lines.append("|---|---|" + "---|" * len(ROLES))
    for name, says in _permissions():
        marks = " | ".join("yes" if role.wants(name) else "" for role in ROLES)
        lines.append(f"| `{name}` | {_cell(says)} | {marks} |")
    return "\n".join(lines) + "\n"


def _permissions() -> Iterator[tuple[str, str]]:
    """Those of models that have pages, and those that a verb needs, with what they say."""
    shown = set(admin.site._registry)
    for model in sorted(apps.get_models(), key=lambda model: model._meta.label_lower):
        options = model._meta
        if model in shown:
            for verb in options.default_permissions:
                yield (
                    f"{options.app_label}.{verb}_{options.model_name}",
                    f"Can {verb} {options.verbose_name_plural}",
                )
        for codename, says in options.permissions:
            yield f"{options.app_label}.{codename}", str(says)


PAGES: dict[str, Callable[[], str]] = {
    "configuration.schema.json": configuration_schema,
    "expressions.md": expressions,
    "connectors.md": connectors,
    "command-line.md": command_line,
    "roles.md": roles,
    "openapi.yaml": as_yaml,
}


def stale() -> list[str]:
    """The names of the pages that are out of date."""
    return [name for name in PAGES if _kept(name) != PAGES[name]()]


def _kept(name: str) -> str:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write() -> list[str]:
    """Write the pages that are out of date; returns their names."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    written = []
    for name, build in PAGES.items():
        text = build()
        if _kept(name) != text:
            (FOLDER / name).write_text(text, encoding="utf-8")
            written.append(name)
    return written
