"""Run the suite: `make bench`, with ARGS such as --rows=100000 --pairs=3 --job="full load".

Prints a table, writes `bench/results.json`, and puts the table into `docs/performance.md`.
With PEERS=1 the peers take their turn in each pair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import sys
from pathlib import Path
from typing import Any

from bench.scene import enter_platform, scene
from bench.suite import peers as other_tools
from bench.suite.jobs import Jobs
from bench.suite.mariadb import scratch_mariadb
from bench.suite.measuring import measure
from bench.suite.platforms import Platform
from bench.suite.report import as_table, write_page

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--job", action="append", help="only this one; may be repeated")
    parser.add_argument("--broker", choices=("embedded", "redis"), default="redis")
    parser.add_argument("--flame-graphs", type=Path, help="a folder for one of each run of ours")
    parser.add_argument("--write", action="store_true", help="keep results and update the page")
    options = parser.parse_args()
    names = other_tools.install(say) if os.environ.get("PEERS") == "1" else set()
    results: list[dict[str, Any]] = []
    with (
        scene(
            broker=options.broker, platform="postgresql", rows=options.rows, tick_seconds="1"
        ) as made,
        scratch_mariadb() as mariadb,
    ):
        enter_platform(made)
        platform = Platform(made, mariadb, flame_graphs=options.flame_graphs)
        platform.start()
        jobs = Jobs(platform, options.rows, other_tools.Peers(platform, names))
        for name, make in jobs.all().items():
            if not options.job or name in options.job:
                result = measure(make(), options.rows, options.pairs, say).as_json()
                results.append(result)
    print(as_table(results))
    if options.write:
        conditions = {"cores": os.cpu_count(), "python": machine.python_version()}
        (ROOT / "bench/results.json").write_text(json.dumps(results, indent=1) + "\n")
        write_page(ROOT / "docs/performance.md", results, conditions)
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
