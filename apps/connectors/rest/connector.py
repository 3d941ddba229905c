"""REST APIs as sources: what they offer is declared, not programmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

from apps.connectors.base import (
    Capabilities,
    CheckStep,
    Connector,
    DatasetSchema,
    ReadBatch,
    ReadRequest,
    WriteSession,
)
from apps.connectors.errors import (
    ConfigurationError,
    PermissionRefused,
    SignInRefused,
    TargetBusy,
)
from apps.connectors.files.selection import Selection
from apps.connectors.outbound import WEB
from apps.connectors.rest.answers import AnswerUnusable
from apps.connectors.rest.client import RestClient
from apps.connectors.rest.reading import DatasetApi, host_of
from apps.connectors.rest.records import Page
from apps.connectors.rest.settings import RestSettings
from apps.connectors.rest.writing import RestWriteSession
from apps.connectors.sql import connect_host, resolve_host, run_steps, unreachable


class RestConnector(Connector[RestSettings]):
    name = "rest"
    label = "REST API"
    settings_model = RestSettings
    capabilities = Capabilities(
        write=True,
        cursor=True,
        key_lookup=True,
        server_assigned_keys=True,
        returns_stored=True,
        delete=True,
        inferred_types=True,
        compare_and_set=False,
        batch_rows=500,
    )

    def __init__(self, settings: RestSettings) -> None:
        super().__init__(settings)
        self.capabilities = _capabilities(settings)

    def check(self) -> Iterator[CheckStep]:
        host, port = host_of(self.settings.api.url)
        return run_steps(
            [
                ("resolve", lambda: unreachable(lambda: resolve_host(WEB, host, port), host)),
                (
                    "connect",
                    lambda: unreachable(
                        lambda: connect_host(WEB, host, port, self.settings.timeout), host
                    ),
                ),
                ("tls", self._check_tls),
                ("read", self._check_read),
            ],
            secret=self.settings.secret_text,
        )

    def _check_tls(self) -> str:
        if urlsplit(self.settings.api.url).scheme == "http":
            return "This machine is reached without TLS."
        # An answer, whatever it is, came by a sound connection.
        answers = suppress(SignInRefused, PermissionRefused, AnswerUnusable, TargetBusy)
        with RestClient(self.settings) as client, answers:
            client.get("", {})
        return "The server's certificate is accepted."

    def _check_read(self) -> str:
        names = sorted(self.settings.api.datasets)
        if not names:
            raise ConfigurationError(
                "no dataset is declared", remedy="Write into 'Datasets' what the API offers."
            )
        with RestClient(self.settings) as client:
            for name in names:
                page = next(DatasetApi(client, self.settings.api, name).everything(), None)
                if page is not None and page.records:
                    break
        return f"{len(names)} datasets are declared, and records can be read."

    def discover(self) -> list[DatasetSchema]:
        return [self.describe(name) for name in sorted(self.settings.api.datasets)]

    def describe(self, dataset: str) -> DatasetSchema:
        with RestClient(self.settings) as client:
            api = DatasetApi(client, self.settings.api, dataset)
            return api.describe(self.settings.sample_records, read_only=self.settings.read_only)

    def count(self, dataset: DatasetSchema) -> int:
        with RestClient(self.settings) as client:
            api = DatasetApi(client, self.settings.api, dataset.name)
            return sum(len(page.records) + len(page.rejected) for page in api.everything())

    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        chosen = [r for r in (request.part, request.cursor, request.keys) if r is not None]
        if len(chosen) > 1:
            raise ValueError("at most one of part, cursor and keys")
        selection = Selection(request)
        needed = selection.needed
        with RestClient(self.settings) as client:
            api = DatasetApi(client, self.settings.api, request.dataset.name)
            api.require_fields([field.name for field in needed])
            for page in self._pages(api, request):
                if selection.exhausted:
                    return
                yield from selection.batches(api.rows(page, needed))

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        return RestWriteSession(self.settings, dataset, lease_seconds)

    @staticmethod
    def _pages(api: DatasetApi, request: ReadRequest) -> Iterator[Page]:
        keys, cursor = request.keys, request.cursor
        if keys is not None:
            if not keys.num_rows:
                return iter(())
            fields = [request.dataset.field(name) for name in keys.column_names]
            return api.find(keys, fields)
        incremental = api.definition.incremental
        if cursor is not None and incremental is not None and incremental.field == cursor.field:
            return api.everything(cursor.after)
        return api.everything()


def _capabilities(settings: RestSettings) -> Capabilities:
    """What all of the declared datasets can do."""
    datasets = list(settings.api.datasets.values())
    written = [each for each in datasets if each.writable]
    compared = [write for each in written for write in (each.update, each.delete) if write]
    bulky = any(each.bulk_update for each in written)
    return replace(
        RestConnector.capabilities,
        write=bool(written) and not settings.read_only,
        delete=any(each.delete for each in written),
        key_lookup=bool(datasets) and all(each.finds_keys for each in datasets),
        server_assigned_keys=any(each.assigns_key for each in written),
        returns_stored=bool(written) and all(each.tells_records for each in written),
        compare_and_set=not bulky and all(write.if_match for write in compared),
    )
