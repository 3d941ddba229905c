"""Strongly connected components of a graph: what can only be done together, in the right order.

R. Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1 (1972).
"""

from __future__ import annotations

from collections.abc import Iterator

Parents = dict[int, list[int]]
"""By number the numbers that have to come before it, itself aside."""


def components_of(parents: Parents, count: int) -> Iterator[list[int]]:
    """The strongly connected components, each after those that it refers to."""
    found = [-1] * count  # in which order the rows were reached
    lowest = [0] * count
    waiting: list[int] = []
    is_waiting = [False] * count
    reached = 0
    for start in range(count):
        path: list[tuple[int, Iterator[int]]] = []
        enter = start if found[start] < 0 else None
        while enter is not None or path:
            if enter is not None:
                found[enter] = lowest[enter] = reached
                reached += 1
                waiting.append(enter)
                is_waiting[enter] = True
                path.append((enter, iter(parents.get(enter, ()))))
            row, left = path[-1]
            enter = None
            for parent in left:
                if found[parent] < 0:
                    enter = parent
                    break
                if is_waiting[parent]:
                    lowest[row] = min(lowest[row], found[parent])
            if enter is not None:
                continue
            path.pop()
            if path:
                lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[row])
            if lowest[row] == found[row]:
                yield _popped(waiting, is_waiting, row)


def _popped(waiting: list[int], is_waiting: list[bool], until: int) -> list[int]:
    component: list[int] = []
    while not component or component[-1] != until:
        component.append(waiting.pop())
        is_waiting[component[-1]] = False
    return sorted(component)
