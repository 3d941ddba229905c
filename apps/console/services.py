"""Writes of the console: load, run and remove the demo."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, QuerySet

from apps.audit.actions import Act
from apps.audit.services import record
from apps.console.demo import contacts, life, platforms
from apps.core.selectors import reaches_all
from apps.core.services import set_platform_paused
from apps.ledger.services import forget_rule
from apps.mappings.models import LookupTable, Mapping
from apps.rules.configuration import apply, read_file
from apps.rules.models import Rule
from apps.rules.selectors import in_dependency_order
from apps.runs.models import ACTIVE_STATUSES, Run
from apps.runs.services import cancel_run, request_run, work_until_finished
from apps.sources.models import Source

if TYPE_CHECKING:
    from apps.accounts.models import User

CONFIGURATION = Path(__file__).parent / "demo" / "demo.yaml"
PREVIEWED_RULE = "Demo customers"
TWO_WAY_RULE = "Demo contacts"


@transaction.atomic
def pause_everything(*, actor: User | None, reason: str = "") -> None:
    """Nothing starts any more. `actor` None is the system itself. Raises PermissionDenied."""
    set_platform_paused(True, actor=actor, reason=reason)
    record(Act.PLATFORM_PAUSED, actor=actor, reason=reason)


@transaction.atomic
def resume_everything(*, actor: User | None, reason: str = "") -> None:
    """Everything goes on. Raises as `pause_everything`."""
    set_platform_paused(False, actor=actor)
    record(Act.PLATFORM_RESUMED, actor=actor, reason=reason)


def demo_folder() -> Path:
    return Path(settings.DATA_DIR) / "demo"


def demo_is_loaded() -> bool:
    return Source.objects.filter(is_demo=True).exists()


def mappings_on_demo() -> QuerySet[Mapping]:
    """Mappings that read or write a source of the demo, its own and people's."""
    sources = Source.objects.filter(is_demo=True)
    return Mapping.objects.filter(Q(left__source__in=sources) | Q(right__source__in=sources))


def rules_on_demo() -> QuerySet[Rule]:
    """Rules that go with the demo: its own, and what people built on its sources."""
    return Rule.objects.filter(Q(is_demo=True) | Q(mapping__in=mappings_on_demo()))


def load_demo() -> None:
    """Write the demo's platforms and configure their sync. Does nothing when it is there."""
    if demo_is_loaded():
        return
    platforms.create(demo_folder())
    variables = {"DEMO_FOLDER": str(demo_folder().resolve())}
    apply(read_file(CONFIGURATION), actor=None, variables=variables, is_demo=True)


def run_demo_once(tell: Callable[[Run], None] | None = None) -> None:
    """The first real runs, one after the other; then life goes on and a dry run looks at it.

    tell: is told of each run that is finished, or waits.
    """

    def run(rule: Rule) -> None:
        ended = work_until_finished(request_run(rule, actor=None))
        if tell is not None:
            tell(ended)

    for rule in in_dependency_order(Rule.objects.filter(is_demo=True)):
        if not rule.runs.exists():
            run(rule)
    _live_on_both_sides(run)
    touch_demo()
    rule = Rule.objects.get(name=PREVIEWED_RULE, is_demo=True)
    request_run(rule, actor=None, mode=Run.Mode.DRY_RUN, sweep=True)


def _live_on_both_sides(run: Callable[[Rule], None]) -> None:
    """Contacts are edited in the CRM and at the desk: merges, conflicts, and a plan that waits."""
    rule = Rule.objects.get(name=TWO_WAY_RULE, is_demo=True)
    contacts.edit(demo_folder())
    run(rule)
    contacts.clear_out(demo_folder())
    run(rule)


def touch_demo() -> life.Touched:
    """Edit a few records of the demo's CRM, so that the next run has something to do."""
    return life.touch(demo_folder())


def may_remove_demo(actor: Any) -> bool:
    """Whether `actor` may delete sources and rules, whichever the demo has."""
    rights = ["sources.delete_source", "rules.delete_rule"]
    return bool(actor.has_perms(rights)) and reaches_all(actor)


def remove_demo(*, actor: User | None = None) -> None:
    """Remove everything of the demo, and what was built on its sources.

    Runs that go on are cancelled; the history of the configuration stays. Raises PermissionDenied.
    """
    if actor is not None and not may_remove_demo(actor):
        raise PermissionDenied("removing the demo needs the rights to delete sources and rules")
    sources = Source.objects.filter(is_demo=True)
    mappings = list(mappings_on_demo())
    rules = list(rules_on_demo())
    for run in Run.objects.filter(rule__in=rules, status__in=ACTIVE_STATUSES):
        cancel_run(run, actor=None)
    ids = [rule.pk for rule in rules]
    removed = {"sources": list(sources), "mappings": mappings, "rules": rules}
    with transaction.atomic():
        details = {kind: [str(obj) for obj in found] for kind, found in removed.items()}
        record(Act.DEMO_REMOVED, actor=actor, details=details)
        Run.objects.filter(rule__in=rules).delete()
        for rule in rules:
            rule.delete()
        for mapping in mappings:
            mapping.delete()
        LookupTable.objects.filter(name__in=read_file(CONFIGURATION).document.lookups).delete()
        for source in list(sources):
            source.delete()
    for rule_id in ids:  # after its runs are gone, so that no worker can write another row
        forget_rule(rule_id)
    shutil.rmtree(demo_folder(), ignore_errors=True)
