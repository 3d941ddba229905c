"""Buttons on an object's page that change something.

Each one is a POST of its own address: a GET answers 405, and the permission is asked on the
object itself. A `confirm` sentence is asked in a dialog before the form is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.http import HttpRequest

from apps.core.selectors import scoped


@dataclass(frozen=True, slots=True)
class ObjectLink:
    """A way from an object's page to a further page about it, shown beside its buttons."""

    label: str
    url: str
    icon: str


def _always(obj: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ObjectAction:
    """One button.

    permission: action part of a model permission, such as `run` for `rules.run_rule`;
    handler: name of the model admin's method `(request, obj) -> HttpResponse | None`;
    confirm: the question of the dialog, empty for none; `{obj}` is the object's name;
    shown: whether the button makes sense for this object now;
    dangerous: the person must have proved a second factor a short while ago.
    """

    name: str
    label: str
    icon: str
    permission: str
    handler: str
    confirm: str = ""
    variant: str = ""
    shown: Callable[[Any], bool] = _always
    dangerous: bool = False

    def permitted(self, request: HttpRequest, obj: Model) -> bool:
        manager = type(obj)._default_manager
        return scoped(manager.filter(pk=obj.pk), request.user, self.permission).exists()

    def question(self, obj: Model) -> str:
        return self.confirm.format(obj=obj)
