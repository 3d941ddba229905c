"""The face for workers: tasks carry ids only, and call services."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from apps.runs import services

WORK_SECONDS = 20.0  # then other tasks have their turn


@shared_task(name="runs.work")  # type: ignore[untyped-decorator]
def work(partition_id: str) -> None:
    services.work(UUID(partition_id))


@shared_task(name="runs.keep_former_values")  # type: ignore[untyped-decorator]
def keep_former_values() -> None:
    services.keep_former_values_of_runs(WORK_SECONDS)


@shared_task(name="runs.follow_searchable_fields")  # type: ignore[untyped-decorator]
def follow_searchable_fields() -> None:
    services.follow_searchable_fields()


@shared_task(name="runs.tick")  # type: ignore[untyped-decorator]
def tick() -> None:
    services.tick()
