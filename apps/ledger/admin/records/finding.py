"""Finding a record: by its key, or by a name, an address or another value that it has or had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest
from django.urls import reverse
from django.utils.http import urlencode

from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.connectors.errors import LockstepError
from apps.core.admin import explain
from apps.core.selectors import by_id
from apps.ledger.selectors.former_values import find_by_former_value
from apps.ledger.selectors.record_family import Address, Family, parse_keys, record_family
from apps.mappings.marking import mapped_fields, searched_sides
from apps.rules.models import Rule
from apps.sources.live import MOST_FOUND, keys_by_value
from apps.sources.models import Dataset, Field
from apps.sources.selectors import datasets

if TYPE_CHECKING:
    from apps.accounts.models import User

MOST_ASKED = 20
Place = tuple[Dataset, str]
"""A field of a dataset."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A value at an address: in which fields, and until when; None: it is there now."""

    address: Address
    fields: tuple[str, ...]
    until: datetime | None = None


def families(every: list[Rule], found: Iterable[Address]) -> list[Family]:
    """The records at these addresses, each once, however many systems have it."""
    chosen: list[Family] = []
    seen: set[Address] = set()
    for address in found:
        if address not in seen:
            family = record_family(every, address)
            seen |= set(family.addresses)
            chosen.append(family)
    return chosen


def search_everywhere(request: HttpRequest, every: list[Rule], text: str) -> list[Sighting]:
    """Where records have or had this value: in the fields that are marked as searchable."""
    marked = _fields(every, request.user).filter(searchable=True)
    places = [(field.dataset, field.name) for field in marked]
    _note(request, {*(f"{dataset}: {name}" for dataset, name in places), *_fields_before(every)})
    found = _search_before(request, every, text)
    for place in places[:MOST_ASKED]:
        found += _search_now(request, place, text)
    if len(places) > MOST_ASKED:
        messages.info(
            request, f"The first {MOST_ASKED} of {len(places)} searchable fields were searched."
        )
    return found


def _search_before(request: HttpRequest, every: list[Rule], text: str) -> list[Sighting]:
    former = find_by_former_value(every, text)
    if former.is_cut:
        messages.warning(
            request,
            f"There may be more records that had this value: shown are {len(former.hits)} of those "
            "that had it last. Search for more words of it.",
        )
    if former.unreadable:
        messages.error(
            request,
            f"Changes that cannot be read: {former.unreadable}. They may be of more records.",
        )
    return [Sighting(hit.address, hit.fields, hit.until) for hit in former.hits]


def search_field(request: HttpRequest, every: list[Rule], where: str, text: str) -> list[Sighting]:
    """Where records have this value now, in one field. where: `dataset id:field`.

    Raises Http404 for a field that is not there for this person.
    """
    dataset_id, _, name = where.partition(":")
    dataset = by_id(datasets(request.user), dataset_id)
    if dataset is None or not _fields(every, request.user).filter(dataset=dataset, name=name):
        raise Http404("no such dataset or field")
    _note(request, {f"{dataset}: {name}"})
    found = _search_now(request, (dataset, name), text)
    if not found:
        messages.warning(request, f"No record of {dataset} has this value in {name} now.")
    return found


def _search_now(request: HttpRequest, place: Place, text: str) -> list[Sighting]:
    dataset, name = place
    try:
        keys = keys_by_value(dataset, name, text)
    except LockstepError as error:
        messages.error(request, explain(error))
        return []
    if len(keys) > MOST_FOUND:
        messages.warning(
            request,
            f"More than {MOST_FOUND} records of {dataset} have this value in {name}: "
            f"{MOST_FOUND} of them are shown.",
        )
    return [Sighting(Address(dataset.pk, key), (name,)) for key in keys[:MOST_FOUND]]


def _note(request: HttpRequest, fields: Iterable[str]) -> None:
    """On record is who searched where, never for what: that may be a person."""
    actor: User = request.user  # type: ignore[assignment]
    subject = Subject("ledger.change", label="records")
    record(Act.RECORDS_SEARCHED, subject, actor=actor, details={"fields": sorted(fields)})


def _fields(every: list[Rule], user: Any) -> QuerySet[Field]:
    """The fields that a person may search by: of datasets that this person may look at, those that
    these rules map. Whether a value is in another field is nobody's business here."""
    mapped = Q(pk__in=())
    for dataset_id, names in mapped_fields(rule.mapping for rule in every).items():
        mapped |= Q(dataset=dataset_id, name__in=names)
    rows = Field.objects.filter(mapped, dataset__in=datasets(user), missing_since=None)
    return rows.select_related("dataset__source").order_by("dataset", "position")


def _fields_before(every: list[Rule]) -> Iterator[str]:
    """The fields of these rules whose old values are searched."""
    searched = searched_sides(rule.mapping for rule in every)
    for rule in every:
        for side, names in searched[rule.mapping_id]._asdict().items():
            dataset = getattr(rule.mapping, side)
            yield from (f"{dataset}: {name}" for name in names)


def searchable(every: list[Rule], user: Any) -> list[tuple[str, str]]:
    """What can be chosen to be searched: those fields, by dataset."""
    found = _fields(every, user)
    choices = ((f"{row.dataset_id}:{row.name}", f"{row.dataset}: {row.name}") for row in found)
    return sorted(choices, key=lambda choice: choice[1])


def places_to_ask(chosen: Sequence[Rule], text: str) -> list[dict[str, Any]]:
    """Where a record with this key might be, though no rule has met it: each rule can be asked."""
    found = []
    for rule in chosen[:MOST_ASKED]:
        for dataset in (rule.mapping.left, rule.mapping.right):
            key = parse_keys(text)[-1 if len(dataset.key) > 1 else 1]
            is_canonical = text.startswith("[") and text.endswith("]")
            at = Address(dataset.pk, text if is_canonical else key)
            query = urlencode({"key": at.key, "why": str(rule.pk)})
            found.append({"rule": rule, "dataset": dataset, "url": f"{record_url(at)}?{query}#why"})
    return found


def known_datasets(found: Iterable[Family]) -> dict[UUID, Dataset]:
    """The datasets of these records, by id."""
    ids = {address.dataset_id for family in found for address in family.addresses}
    return Dataset.objects.select_related("source").in_bulk(ids)


def record_url(address: Address) -> str:
    """The permalink of a record: its key is in it as a hash only."""
    return reverse("admin:ledger_change_record", args=(address.dataset_id, address.digest))


def hit(
    family: Family, known: dict[UUID, Dataset], sightings: Iterable[Sighting] = ()
) -> dict[str, Any]:
    """What a page shows of a record that was found. sightings: of the value that was searched."""
    first = family.addresses[0]
    addresses = set(family.addresses)
    key_query = urlencode({"key": first.key})
    return {
        "url": record_url(first),
        "url_with_key": f"{record_url(first)}?{key_query}",
        "key": first.key,
        "places": [(known.get(a.dataset_id), a.key) for a in family.addresses],
        "dataset": known.get(first.dataset_id),
        "seen": [
            {"dataset": known.get(s.address.dataset_id), "fields": s.fields, "until": s.until}
            for s in sightings
            if s.address in addresses
        ],
    }
