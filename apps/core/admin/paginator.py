"""Pages of a list that may be long: one row more than the page is read, nothing is counted."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Page
from unfold.paginator import InfinitePaginator


class NoCountPaginator(InfinitePaginator):  # type: ignore[misc]
    """`Next` is offered when there is a next row; there is no number of pages."""

    def page(self, number: Any) -> Page:
        number = self.validate_number(number)
        start = (number - 1) * self.per_page
        rows = list(self.object_list[start : start + self.per_page])
        return self._get_page(rows, number, self)
