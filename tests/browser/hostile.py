"""A platform in which every text is an attempt to run a script."""

from __future__ import annotations

from pathlib import Path

from django.apps import apps
from django.db import models

from apps.accounts.models import User
from apps.core.models import Tag
from apps.sources.models import Dataset, Field, Source
from tests.walk.world import Realm, World

MARK = "pwned"
PAYLOAD = (
    f"\"'><img src=x onerror={MARK}=1><script>{MARK}=1</script><b x-data x-init={MARK}=1>"
    f"');{MARK}=1;('${{{MARK}=1}}`</textarea></title><svg/onload={MARK}=1>"
)
SHORT = f'"><svg/onload={MARK}=1>'  # where there is no room; 21 characters
LINK = f"javascript:{MARK}=1"

# Texts of people, of sources and of errors, whatever the model. Not here: what programs go by.
TEXTS = {
    "actor_label", "agent", "after", "before", "cause", "check_name", "cut_reason",
    "decision_note", "deletes_held_back", "description", "email", "error", "first_name",
    "lane_reason", "last_name", "message", "name", "native_type", "note", "object_label", "owner",
    "pause_reason", "position", "reason", "remedy", "user_agent", "waits_for",
}  # fmt: skip
# A source is found by these, so its tables are called so, too, or it keeps them.
KEPT = {Dataset: {"name"}, Field: {"name"}}
INJECTED = (
    "img[src=x]", "[onerror]", "[onload]", f"[x-init*={MARK}]", f"a[href^='javascript:{MARK}']",
)  # fmt: skip


def texts_of(model: type[models.Model]) -> list[models.Field]:
    """The fields of a model that hold such texts."""
    return [
        field
        for field in model._meta.concrete_fields
        if isinstance(field, models.CharField | models.TextField)
        and field.name in TEXTS - KEPT.get(model, set())
        and not field.choices
    ]


def payload_for(field: models.Field, row: models.Model) -> str:
    """A payload that fits; another one for each row where the field is unique."""
    room = field.max_length or 1000
    text = PAYLOAD if room > len(PAYLOAD) + 10 else SHORT
    return f"{text}{row.pk}"[:room] if field.unique and room > 40 else text[:room]


def build(folder: Path) -> World:
    """The world of the walk, with payloads in its records, its rows and its errors."""
    world = World.build(folder)
    for realm in (world.mine, world.theirs):
        _hostile_records(realm)
    Source.objects.first().tags.add(Tag.objects.create(name="tag"))
    for model in apps.get_models():
        if model.__module__.startswith("apps.") and (fields := texts_of(model)):
            for row in model._base_manager.all():
                values = {field.name: payload_for(field, row) for field in fields}
                model._base_manager.filter(pk=row.pk).update(**values)
    step = {"name": PAYLOAD, "status": "failed", "message": PAYLOAD, "remedy": PAYLOAD}
    Source.objects.update(check_steps=[step])
    User.objects.filter(pk=world.shared[User].pk).update(username=f"{SHORT}user")
    return world


def _hostile_records(realm: Realm) -> None:
    """Values of records, in changes, conflicts and rejections; the names of a table and a field."""
    pair = realm.pair
    pair.on_left("UPDATE customers SET name = ?", PAYLOAD)
    pair.on_right("UPDATE clients SET note = ?", LINK)
    pair.run()
    quoted = PAYLOAD.replace('"', '""')
    pair.on_left(f'CREATE TABLE "{quoted}" (id INTEGER PRIMARY KEY, "{quoted}" TEXT)')
