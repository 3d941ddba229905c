"""From an OpenAPI document to a proposal: datasets with fields, keys, paging and writes.

A path whose GET answers with a list of objects is a dataset; the path below it with one more
parameter is a single record, and that parameter names the key. How a list goes on is told from
the names of its parameters and of the members beside the records. A proposal is for a person to
look through: what could not be told is said in notes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from apps.connectors.errors import ConfigurationError
from apps.connectors.rest.definition import DatasetDefinition
from apps.connectors.rest.openapi_schema import Document, Json, Operation

_LIST_NAMES = ("data", "items", "results", "records", "value", "values", "entries", "content")
_TOTALS = ("total", "total_count", "totalCount", "count", "totalElements", "total_results")
_CURSORS = ("next_cursor", "nextCursor", "next_page_token", "nextPageToken", "cursor", "after")
_NEXT_URLS = ("next", "next_url", "nextUrl", "next_page_url", "@odata.nextLink")
_SINCE = ("updated_since", "modified_since", "updated_after", "modified_after", "since")
_CHANGED = ("updated_at", "updatedAt", "modified_at", "modifiedAt", "last_modified", "updated")
_PAGES = ("page", "page_number", "pageNumber")
_SIZES = ("per_page", "page_size", "pageSize", "limit", "size", "top")
_OFFSETS = ("offset", "skip", "start")
_TOKENS = ("cursor", "page_token", "pageToken", "after", "starting_after", "next")
_PARAMETER = re.compile(r"\{([^{}]+)\}")


@dataclass(slots=True)
class Proposal:
    """settings: what the document says of address and sign-in; notes: what a person must know."""

    settings: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_yaml(self) -> str:
        """A source's settings, as a configuration file has them, with the notes as comments."""
        comments = "".join(f"# {note}\n" for note in self.notes)
        whole = {**self.settings, "definition": {"datasets": self.datasets}}
        text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=100)
        return f"{comments}{text}"


def propose_from(text: str) -> Proposal:
    """Read a document (JSON or YAML) and propose. Raises ConfigurationError."""
    try:
        content = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        raise ConfigurationError("the document is neither JSON nor YAML") from None
    version = str(content.get("openapi", "")) if isinstance(content, dict) else ""
    if not version.startswith("3."):
        raise ConfigurationError(
            "this is no OpenAPI 3 document",
            remedy="Convert older ones (Swagger 2) to OpenAPI 3 first.",
        )
    return _Proposer(Document(content)).propose()


@dataclass(slots=True)
class _List:
    """A dataset in the making. item_path: of its single records, with `parameter` for the key."""

    name: str
    operation: Operation
    record: Json
    records_path: str
    beside: dict[str, Json]
    key: str = ""
    item_path: str = ""
    parameter: str = ""


class _Proposer:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._operations = document.operations()
        self._proposal = Proposal()
        self._lists: dict[str, _List] = {}

    def propose(self) -> Proposal:
        proposal = self._proposal
        if self._document.url:
            proposal.settings["url"] = self._document.url
        else:
            proposal.notes.append("The document names no server: set 'url'.")
        self._propose_sign_in()
        for (method, path), operation in self._operations.items():
            if method == "get" and not path.rstrip("/").endswith("}"):
                self._find_list(path, operation)
        for each in self._lists.values():
            self._add(each)
        if not proposal.datasets:
            proposal.notes.append("No path answers with a list of objects.")
        return proposal

    def _propose_sign_in(self) -> None:
        settings = self._proposal.settings
        for scheme in self._document.security_schemes():
            kind, http = scheme.get("type"), str(scheme.get("scheme", "")).lower()
            flows = self._document.resolved(scheme.get("flows"))
            credentials = self._document.resolved(flows.get("clientCredentials"))
            if kind == "http" and http in ("basic", "bearer"):
                settings["auth"] = http
            elif kind == "apiKey" and scheme.get("in") in ("header", "query"):
                settings["auth"] = f"api_key_{scheme['in']}"
                settings["key_name"] = str(scheme.get("name", ""))
            elif credentials:
                settings["auth"] = "oauth2_client_credentials"
                settings["token_url"] = str(credentials.get("tokenUrl", ""))
            else:
                continue
            self._proposal.notes.append("Set 'secret' (and 'user', where sign-in needs one).")
            return

    # Lists and their records.

    def _find_list(self, path: str, operation: Operation) -> None:
        schema = self._document.answer_schema(operation)
        place, record, beside = self._records_of(schema)
        if record is None:
            return
        segments = [s for s in path.strip("/").split("/") if "{" not in s]
        name = segments[-1] if segments else "records"
        if name in self._lists or name in {each.name for each in self._lists.values()}:
            name = "_".join(segments)
        found = _List(name, operation, record, place, beside)
        self._find_item(path, found)
        self._lists[path] = found

    def _records_of(self, schema: Json) -> tuple[str, Json | None, dict[str, Json]]:
        """Where the records are, the schema of one, and the members beside them."""
        if schema.get("type") == "array":
            return "@", self._object(schema.get("items")), {}
        members = {n: self._document.schema(s) for n, s in schema.get("properties", {}).items()}
        lists = {n: self._object(s.get("items")) for n, s in members.items() if "items" in s}
        lists = {name: record for name, record in lists.items() if record is not None}
        names = [name for name in _LIST_NAMES if name in lists] or list(lists)
        if not names or (len(lists) > 1 and names[0] not in _LIST_NAMES):
            return "", None, {}
        beside = {name: spec for name, spec in members.items() if name != names[0]}
        for name in ("meta", "paging", "pagination", "page_info"):
            inner = beside.get(name, {}).get("properties", {})
            for below, spec in inner.items():
                beside[f"{name}.{below}"] = self._document.schema(spec)
        return _quoted(names[0]), lists[names[0]], beside

    def _object(self, node: Any) -> Json | None:
        spec = self._document.schema(node)
        return spec if spec.get("properties") else None

    def _find_item(self, path: str, found: _List) -> None:
        properties = found.record.get("properties", {})
        pattern = re.compile(re.escape(path.rstrip("/")) + r"/\{([^{}]+)\}/?$")
        for _, other in self._operations:
            match = pattern.match(other)
            if match:
                found.item_path, found.parameter = other, match[1]
        wanted = [found.parameter, "id", "uuid", "key", "code", "slug", "name"]
        if found.parameter:
            ending = re.search(r"(?i)(id|uuid|key|code|slug|name)$", found.parameter)
            wanted.insert(1, ending[1].lower() if ending else "")
        found.key = next((n for n in wanted if n in properties), "")

    # One dataset.

    def _add(self, found: _List) -> None:
        dataset: dict[str, Any] = {}
        parents = self._parent(found)
        if parents is None:
            self._proposal.notes.append(
                f"{found.operation.path} is left out: no list tells the values of its parameters."
            )
            return
        dataset.update(parents)
        dataset["path"] = found.operation.path
        if found.records_path != "@":
            dataset["records"] = found.records_path
        if found.key:
            dataset["key"] = [*parents.get("parent", {}).get("fields", {}), found.key]
        else:
            self._proposal.notes.append(f"{found.name}: no key could be told; it is only read.")
        dataset["pagination"] = self._pagination(found)
        dataset.update(self._incremental(found))
        dataset["fields"] = self._fields(found)
        if found.key:
            dataset.update(self._writes(found))
        self._keep(found.name, dataset)

    def _keep(self, name: str, dataset: dict[str, Any]) -> None:
        """Keep what holds together; what is written may be left out for that."""
        for left_out in ((), ("create", "update", "delete")):
            kept = {key: value for key, value in dataset.items() if key not in left_out and value}
            try:
                DatasetDefinition.model_validate(kept)
            except ValidationError as error:
                reason = error.errors(include_url=False, include_input=False)[0]["msg"]
                continue
            if left_out:
                self._proposal.notes.append(f"{name}: only read ({reason}).")
            self._proposal.datasets[name] = kept
            return
        self._proposal.notes.append(f"{name}: left out ({reason}).")

    def _parent(self, found: _List) -> dict[str, Any] | None:
        """The dataset whose records the path goes through; None where there is none."""
        names = _PARAMETER.findall(found.operation.path)
        if not names:
            return {}
        for above in self._lists.values():
            if above.item_path and found.operation.path.startswith(above.item_path + "/"):
                deeper = _PARAMETER.findall(above.operation.path)
                if above.key and [*deeper, above.parameter] == names:
                    fields = {**{n: n for n in deeper}, above.parameter: above.key}
                    return {"parent": {"dataset": above.name, "fields": fields}}
        return None

    def _fields(self, found: _List) -> dict[str, Any]:
        required = set(found.record.get("required", []))
        create = self._operations.get(("post", found.operation.path))
        taken = self._document.body_schema(create).get("properties", {}) if create else {}
        fields: dict[str, Any] = {}
        for name, node in found.record.get("properties", {}).items():
            spec = self._document.schema(node)
            declared: dict[str, Any] = {"type": self._document.neutral_type(node)}
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                declared["path"] = f'"{name}"'
            if name == found.key and create and (spec.get("readOnly") or name not in taken):
                declared["assigned"] = True
            elif spec.get("readOnly"):
                declared["read_only"] = True
            if (name in required and not spec.get("nullable")) or name == found.key:
                declared["required"] = True
            fields[name] = declared if len(declared) > 1 else declared["type"]
        return fields

    def _pagination(self, found: _List) -> dict[str, Any]:
        operation, beside = found.operation, found.beside
        paging: dict[str, Any] = {}
        cursor = _first(beside, _CURSORS)
        next_url = _first(beside, _NEXT_URLS)
        if token := (operation.named(*_TOKENS) if cursor else ""):
            paging = {"kind": "cursor", "param": token, "next": cursor}
        elif next_url and "string" in str(beside[_bare(next_url)].get("type")):
            paging = {"kind": "next_url", "next": next_url}
        elif "link" in self._document.answer_headers(operation):
            paging = {"kind": "link"}
        elif offset := operation.named(*_OFFSETS):
            paging = {"kind": "offset", "param": offset}
        elif page := operation.named(*_PAGES):
            first = self._document.schema(operation.parameters[page].get("schema"))
            paging = {"kind": "page", "param": page}
            if first.get("default") == 0 or first.get("minimum") == 0:
                paging["first"] = 0
        if not paging:
            return {}
        if size := operation.named(*_SIZES):
            spec = self._document.schema(operation.parameters[size].get("schema"))
            most = spec.get("maximum")
            paging["size_param"] = size
            paging["size"] = min(most, 1000) if isinstance(most, int) and most > 0 else 100
        if paging["kind"] in ("page", "offset") and (total := _first(beside, _TOTALS)):
            paging["total"] = total
        return paging

    def _incremental(self, found: _List) -> dict[str, Any]:
        param = found.operation.named(*_SINCE)
        changed = next((n for n in _CHANGED if n in found.record.get("properties", {})), "")
        if not param or not changed:
            return {}
        spec = self._document.schema(found.operation.parameters[param].get("schema"))
        is_text = spec.get("type", "string") == "string"
        form = "date" if spec.get("format") == "date" else "iso" if is_text else "epoch"
        return {"incremental": {"field": changed, "param": param, "format": form}}

    def _writes(self, found: _List) -> dict[str, Any]:
        item = found.item_path.replace(f"{{{found.parameter}}}", f"{{{found.key}}}")
        writes: dict[str, Any] = {}
        if ("get", found.item_path) in self._operations:
            writes["item"] = item
            single = self._document.answer_schema(self._operations["get", found.item_path])
            place = self._inside(single, found)
            if place != "@":
                writes["item_record"] = place
        create = self._operations.get(("post", found.operation.path))
        if create is not None:
            writes["create"] = {"method": "POST", "path": found.operation.path}
            writes["create"].update(self._told(create, found))
            if header := create.named("Idempotency-Key", place="header"):
                writes["create"]["idempotency_header"] = header
        for method in ("patch", "put"):
            update = self._operations.get((method, found.item_path))
            if update is not None and "update" not in writes:
                whole = {"whole": True} if method == "put" else {}
                writes["update"] = {"method": method.upper(), "path": item, **whole}
                writes["update"].update(self._told(update, found), **_match(update))
        delete = self._operations.get(("delete", found.item_path))
        if delete is not None:
            writes["delete"] = {"method": "DELETE", "path": item, **_match(delete)}
        return writes

    def _told(self, operation: Operation, found: _List) -> dict[str, str]:
        place = self._inside(self._document.answer_schema(operation), found)
        return {"record": place} if place else {}

    def _inside(self, schema: Json, found: _List) -> str:
        """Where an answer holds the record; empty: nowhere."""
        properties = schema.get("properties", {})
        if found.key in properties:
            return "@"
        for name, node in properties.items():
            if found.key in self._document.schema(node).get("properties", {}):
                return _quoted(name)
        return ""


def _match(operation: Operation) -> dict[str, bool]:
    return {"if_match": True} if operation.named("If-Match", place="header") else {}


def _first(beside: dict[str, Json], names: tuple[str, ...]) -> str:
    """The path of the first of these members, directly or one level below."""
    for name in names:
        for path in beside:
            if path == name or path.endswith(f".{name}"):
                return ".".join(_quoted(part) for part in path.split("."))
    return ""


def _bare(path: str) -> str:
    return path.replace('"', "")


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f'"{name}"'
