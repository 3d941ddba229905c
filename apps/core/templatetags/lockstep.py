"""How states, times, numbers and sizes look on every page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.timesince import timesince, timeuntil

from apps.core.clock import now
from apps.engine.types_sql import key_values

register = template.Library()

# value -> tone (good, warn, bad, info, quiet) and icon
LOOKS: dict[str, tuple[str, str]] = {
    "queued": ("quiet", "schedule"),
    "planning": ("info", "sync"),
    "reviewing": ("info", "rate_review"),
    "applying": ("info", "sync"),
    "verifying": ("info", "fact_check"),
    "waiting": ("warn", "pending_actions"),
    "planned": ("info", "visibility"),
    "succeeded": ("good", "check_circle"),
    "partial": ("warn", "warning"),
    "refused": ("bad", "block"),
    "failed": ("bad", "error"),
    "failing": ("bad", "error"),
    "cancelled": ("quiet", "cancel"),
    "expired": ("quiet", "timer_off"),
    "in_doubt": ("bad", "question_mark"),
    "ok": ("good", "check_circle"),
    "skipped": ("quiet", "remove_circle"),
    "unknown": ("quiet", "help"),
    "paused": ("warn", "pause_circle"),
    "disabled": ("quiet", "toggle_off"),
    "enabled": ("good", "toggle_on"),
    "open": ("warn", "flag"),
    "replaying": ("info", "replay"),
    "dry_run": ("quiet", "visibility"),
    "resolved": ("good", "check_circle"),
    "dismissed": ("quiet", "do_not_disturb_on"),
    "insert": ("good", "add_circle"),
    "update": ("info", "edit"),
    "delete": ("bad", "delete"),
    "applied": ("good", "check_circle"),
    "success": ("good", "check_circle"),
    "stale": ("warn", "update"),
    "rejected": ("bad", "block"),
    "to_plan": ("quiet", "schedule"),
    "to_apply": ("quiet", "schedule"),
    "done": ("good", "check_circle"),
    "missing": ("bad", "error"),
    "breaking": ("bad", "error"),
    "harmless": ("quiet", "info"),
    "info": ("quiet", "info"),
    "warning": ("warn", "warning"),
    "error": ("bad", "error"),
    "acknowledged": ("info", "back_hand"),
    "snoozed": ("quiet", "snooze"),
    "regressed": ("bad", "settings_backup_restore"),
    "notice": ("info", "info"),
    "critical": ("bad", "crisis_alert"),
    "pending": ("info", "schedule_send"),
    "sent": ("good", "mark_email_read"),
}


@register.simple_tag
def status(value: Any, label: Any = "") -> str:
    """A state as colour, word and icon."""
    tone, icon = LOOKS.get(str(value), ("quiet", "circle"))
    return format_html(
        '<span class="ls-badge ls-{}"><span class="material-symbols-outlined ls-icon" '
        'aria-hidden="true">{}</span>{}</span>',
        tone,
        icon,
        label or str(value).replace("_", " ").capitalize(),
    )


@register.simple_tag
def icon(name: str) -> str:
    return format_html(
        '<span class="material-symbols-outlined ls-icon" aria-hidden="true">{}</span>', name
    )


@register.filter
def ago(moment: datetime | None, empty: str = "never") -> str:
    """A time relative to now, with the instant in UTC on hover."""
    if moment is None:
        return format_html('<span class="ls-quiet">{}</span>', empty)
    instant = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        instant.isoformat(timespec="seconds"),
        instant.strftime("%Y-%m-%d %H:%M:%S"),
        _relative(moment),
    )


def _relative(moment: datetime) -> str:
    current = now()
    if abs(moment - current) < timedelta(seconds=60):
        seconds = int((current - moment).total_seconds())
        if abs(seconds) < 5:
            return "just now"
        return f"{seconds} s ago" if seconds > 0 else f"in {-seconds} s"
    if moment > current:
        return f"in {timeuntil(moment, current, depth=1)}"
    return f"{timesince(moment, current, depth=1)} ago"


@register.filter
def number(value: Any) -> str:
    """Digits in groups of three, with a thin space; empty values as a dash."""
    return "–" if value in (None, "") else f"{int(value):,}".replace(",", "\u202f")


@register.filter
def size(value: Any) -> str:
    """Bytes in a unit that people read."""
    if value in (None, ""):
        return "–"
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return ""


@register.filter
def seconds(value: Any) -> str:
    """A duration in the two largest units that say something."""
    if value is None:
        return "–"
    total = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if total < 10:
        return f"{total:.1f} s"
    if total < 90:
        return f"{total:.0f} s"
    if total < 5400:
        return f"{total // 60:.0f} min {total % 60:.0f} s"
    return f"{total // 3600:.0f} h {total % 3600 // 60:.0f} min"


@register.filter
def record_key(text: str) -> str:
    """A canonical key text as people write it: its values, with commas."""
    try:
        values = key_values(text)
    except ValueError:
        return text
    return ", ".join("NULL" if value is None else str(value) for value in values)


STEP_NAMES = {"sign_in": "Sign in", "tls": "TLS"}


@register.filter
def step_name(name: str) -> str:
    """A step of a connection test."""
    return STEP_NAMES.get(name, name.replace("_", " ").capitalize())


@register.filter
def get(mapping: Any, key: Any) -> Any:
    """`mapping[key]`, or nothing."""
    return mapping.get(key) if mapping else None


@register.filter
def at(sequence: Any, place: int) -> Any:
    """`sequence[place]`."""
    return sequence[place]


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The page's query string with these parameters changed; empty ones are left out."""
    params = context["request"].GET.copy()
    for name, value in changes.items():
        if value in (None, ""):
            params.pop(name, None)
        else:
            params[name] = value
    return f"?{params.urlencode()}"
