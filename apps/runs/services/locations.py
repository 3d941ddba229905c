"""Where a rule's two sides are. Its links are about the data that was there in its last run.

A source that is led elsewhere may hold the same data, moved, or quite other data in which the same
keys are other records: nobody but a person can tell, so the next plan waits for one.
"""

from __future__ import annotations

from apps.mappings.models import Mapping
from apps.rules.models import Rule
from apps.runs.models import Checkpoint
from apps.sources.models import Source
from apps.sources.selectors import location_of


def locations(rule: Rule) -> dict[str, str]:
    """Side -> where its data is now."""
    return {side: location_of(source) for side, source in _sources(rule).items()}


def moved_sources(rule: Rule) -> list[str]:
    """The names of the sources that lead elsewhere than in the rule's last run."""
    checkpoint = Checkpoint.objects.filter(rule=rule).first()
    known = checkpoint.locations if checkpoint is not None else {}
    return [
        source.name
        for side, source in _sources(rule).items()
        if known.get(side, location_of(source)) != location_of(source)
    ]


def _sources(rule: Rule) -> dict[str, Source]:
    both = Mapping.objects.select_related("left__source", "right__source")
    mapping = both.get(pk=rule.mapping_id)
    return {"left": mapping.left.source, "right": mapping.right.source}
