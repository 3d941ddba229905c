"""The seven steps: what each page shows, and what it keeps of what was typed.

`show` gives the context of the page. `keep` stores a POST in the draft; it returns the problems
that hinder going on (none: go on), each a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.console.wizard.steps import datasets, dry_run, enable, key, mapping, policies, sources
from apps.rules.models import SyncDraft


@dataclass(frozen=True, slots=True)
class StepInfo:
    name: str
    title: str
    needs: tuple[str, ...] = ()  # names in the draft's data that must be there first


STEPS = (
    StepInfo("sources", "Sources"),
    StepInfo("datasets", "Datasets", ("left_source", "right_source")),
    StepInfo("key", "Match key", ("left", "right")),
    StepInfo("mapping", "Mapping", ("left", "right", "key")),
    StepInfo("policies", "Policies", ("left", "right", "key", "fields")),
    StepInfo("dry-run", "Dry run", ("left", "right", "key", "fields", "policies")),
    StepInfo("enable", "Schedule & enable", ("left", "right", "key", "fields", "policies")),
)
BY_NAME = {step.name: step for step in STEPS}


def is_open(step: StepInfo, draft: SyncDraft) -> bool:
    """Whether everything that this step builds on is there."""
    return all(draft.data.get(name) for name in step.needs)


def next_step(step: StepInfo) -> StepInfo:
    return STEPS[min(len(STEPS) - 1, STEPS.index(step) + 1)]


SHOW = {
    "sources": sources.show_sources,
    "datasets": datasets.show_datasets,
    "key": key.show_key,
    "mapping": mapping.show_mapping,
    "policies": policies.show_policies,
    "dry-run": dry_run.show_dry_run,
    "enable": enable.show_enable,
}
KEEP = {
    "sources": sources.keep_sources,
    "datasets": datasets.keep_datasets,
    "key": key.keep_key,
    "mapping": mapping.keep_mapping,
    "policies": policies.keep_policies,
    "dry-run": dry_run.keep_dry_run,
    "enable": enable.keep_enable,
}
