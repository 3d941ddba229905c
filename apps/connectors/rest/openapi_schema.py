"""Reading an OpenAPI document: references followed, schemas merged, types made neutral."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_METHODS = ("get", "post", "put", "patch", "delete")
_DEEPEST = 40
_STRING_TYPES = {
    "date-time": "timestamptz",
    "date": "date",
    "time": "time",
    "uuid": "uuid",
    "byte": "bytes",
    "binary": "bytes",
}

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, with its parameters by name."""

    method: str
    path: str
    spec: Json
    parameters: dict[str, Json]

    def named(self, *names: str, place: str = "query") -> str:
        """The first of these parameters that it has, as it spells it; empty: none."""
        spelled = {
            _plain(name): name for name, spec in self.parameters.items() if spec.get("in") == place
        }
        return next((spelled[_plain(name)] for name in names if _plain(name) in spelled), "")


class Document:
    """An OpenAPI 3 document."""

    def __init__(self, content: Json) -> None:
        self._content = content

    @property
    def url(self) -> str:
        """The first server's address; empty where it has variables or is no address."""
        servers = self._content.get("servers") or [{}]
        url = str(servers[0].get("url", "")) if isinstance(servers[0], Mapping) else ""
        return url.rstrip("/") if "://" in url and "{" not in url else ""

    def security_schemes(self) -> Iterator[Json]:
        """How requests may be signed in."""
        components = self.resolved(self._content.get("components"))
        for scheme in self.resolved(components.get("securitySchemes")).values():
            yield self.resolved(scheme)

    def operations(self) -> dict[tuple[str, str], Operation]:
        """By method and path."""
        found = {}
        for path, item in self.resolved(self._content.get("paths")).items():
            item = self.resolved(item)
            shared = item.get("parameters", [])
            for method in _METHODS:
                spec = self.resolved(item.get(method))
                if spec:
                    listed = [self.resolved(p) for p in (*shared, *spec.get("parameters", []))]
                    parameters = {str(p.get("name")): p for p in listed}
                    found[method, path] = Operation(method, path, spec, parameters)
        return found

    def resolved(self, node: Any) -> Json:
        """A node with its reference within the document followed; empty where there is none."""
        for _ in range(_DEEPEST):
            if not isinstance(node, Mapping):
                return {}
            reference = node.get("$ref")
            if not isinstance(reference, str):
                return node
            if not reference.startswith("#/"):
                return {}
            target: Any = self._content
            for part in reference[2:].split("/"):
                name = part.replace("~1", "/").replace("~0", "~")
                target = target.get(name) if isinstance(target, Mapping) else None
            node = target
        return {}

    def schema(self, node: Any, depth: int = 0) -> Json:
        """A schema with what it is made of put together."""
        spec = dict(self.resolved(node))
        if depth > _DEEPEST:
            return {}
        for part in spec.pop("allOf", []):
            inner = self.schema(part, depth + 1)
            properties = {**inner.get("properties", {}), **spec.get("properties", {})}
            required = [*inner.get("required", []), *spec.get("required", [])]
            spec = {**inner, **spec, "properties": properties, "required": required}
        for word in ("oneOf", "anyOf"):
            options = [self.schema(one, depth + 1) for one in spec.get(word, [])]
            options = [one for one in options if one.get("type") != "null"]
            if len(options) == 1:
                spec = {**spec, **options[0]}
        return spec

    def answer_schema(self, operation: Operation) -> Json:
        """The schema of the JSON that an operation answers with when it works."""
        responses = self.resolved(operation.spec.get("responses"))
        for code in sorted(responses, key=str):
            if str(code).startswith("2"):
                return self._content_schema(self.resolved(responses[code]))
        return {}

    def answer_headers(self, operation: Operation) -> set[str]:
        """The headers that it documents, in small letters."""
        responses = self.resolved(operation.spec.get("responses"))
        return {
            str(name).lower()
            for code, response in responses.items()
            if str(code).startswith("2")
            for name in self.resolved(self.resolved(response).get("headers"))
        }

    def body_schema(self, operation: Operation) -> Json:
        """The schema of the JSON that it takes."""
        return self._content_schema(self.resolved(operation.spec.get("requestBody")))

    def _content_schema(self, holder: Json) -> Json:
        for kind, media in self.resolved(holder.get("content")).items():
            if "json" in str(kind) or kind == "*/*":
                return self.schema(self.resolved(media).get("schema"))
        return {}

    def neutral_type(self, node: Any, depth: int = 0) -> str:
        """The neutral type that holds what a schema allows."""
        spec = self.schema(node)
        kind = spec.get("type")
        if isinstance(kind, list):
            kinds = [each for each in kind if each != "null"]
            kind = kinds[0] if len(kinds) == 1 else None
        if kind == "string":
            known = _STRING_TYPES.get(str(spec.get("format")))
            length = spec.get("maxLength")
            return known or (
                f"text({length})" if isinstance(length, int) and length > 0 else "text"
            )
        if kind == "array" and depth < 1:
            inner = self.neutral_type(spec.get("items"), depth + 1)
            return "json" if inner in ("json", "bytes") else f"array({inner})"
        return {"integer": "integer", "boolean": "boolean", "number": "float"}.get(
            str(kind), "json"
        )


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace("[", "").replace("]", "")
