"""Programs that read and write encrypted records while keys are rotated: `python -m … ROLE SHARE`.

Rows are changes with a sealed image, numbered by their sequence. A writer has every row of its
share for itself and remembers what it wrote last; a reader opens any row. Both go on until the
file LOCKSTEP_TEST_STOP is there, and print what they did as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import django

ROWS, SHARES, BATCH = 50_000, 2, 50
ONE = UUID(int=1)  # run, partition and rule of all rows


def fill() -> dict[str, Any]:
    from apps.core.bulk import bulk_insert
    from apps.core.clock import now
    from apps.ledger.models import Change

    columns = ["run_id", "partition_id", "rule_id", "sequence", "side", "operation", "cause"]
    columns += ["left_key", "right_key", "key_after", "field_set_id", "sealed_images", "image"]
    columns += ["outcome", "code", "planned_at"]
    moment = now()
    head = (ONE, ONE, ONE)
    kind = ("right", "update", "changed", "", "", "", 1)
    tail = ("", "applied", "", moment)
    rows = ((*head, n, *kind, _sealed(n, 0), *tail) for n in range(ROWS))
    bulk_insert(Change, columns, rows)
    return {"rows": ROWS}


def _sealed(number: int, version: int) -> bytes:
    from apps.core.protected import seal
    from apps.ledger.models import Change

    return seal(f"{number} {version}".encode(), Change.identity(ONE, number))


def _opened(number: int, sealed: bytes) -> int:
    """The version that a row holds; fails where it holds another row's, or cannot be read."""
    from apps.core.protected import unseal
    from apps.ledger.models import Change

    found, version = unseal(sealed, Change.identity(ONE, number)).decode().split()
    assert int(found) == number
    return int(version)


def write(share: int) -> dict[str, Any]:
    """Each write reads what is there, which has to be what this program wrote last."""
    from django.db import transaction

    from apps.ledger.models import Change

    chance, last, writes = random.Random(share), {}, 0
    while not _stopped():
        picked = sorted(chance.sample(range(share, ROWS, SHARES), BATCH))
        with transaction.atomic():
            rows = Change.objects.filter(partition_id=ONE, sequence__in=picked)
            for row in rows.select_for_update().order_by("id"):
                number = row.sequence
                assert _opened(number, row.sealed_images) == last.get(number, 0), number
                last[number] = last.get(number, 0) + 1
                row.sealed_images = _sealed(number, last[number])
                row.save(update_fields=["sealed_images"])
                writes += 1
    rows = Change.objects.filter(sequence__in=list(last)).values_list("sequence", "sealed_images")
    lost = [number for number, sealed in rows if _opened(number, sealed) != last[number]]
    return {"writes": writes, "lost": lost}


def read(share: int) -> dict[str, Any]:
    from apps.ledger.models import Change

    chance, reads = random.Random(share), 0
    while not _stopped():
        start = chance.randrange(ROWS)
        rows = Change.objects.filter(partition_id=ONE, sequence__gte=start).order_by("sequence")
        for number, sealed in rows.values_list("sequence", "sealed_images")[:200]:
            _opened(number, sealed)
            reads += 1
    return {"reads": reads}


def _stopped() -> bool:
    return Path(os.environ["LOCKSTEP_TEST_STOP"]).exists()


if __name__ == "__main__":
    django.setup()
    role, number = sys.argv[1], int(sys.argv[2])
    done = fill() if role == "fill" else {"write": write, "read": read}[role](number)
    print(json.dumps(done))
