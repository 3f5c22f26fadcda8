"""How well does the embedded model serve a bootstrap? Runs the demo's configuration, engines and all, and looks.

python -m embedded.evaluate [--target 1000] [--temperature 0.9]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline import cli
from pipeline.report import read_rows


def main() -> None:
    """Make a run of the demo's configuration in a folder of its own, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=int, default=1000, help="admitted instructions (1000)")
    parser.add_argument("--temperature", type=float, default=0.9, help="of the bootstrap (0.9)")
    options = parser.parse_args()
    sets = [f"target={options.target}", f"bootstrap.sampling.temperature={options.temperature}"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["run", "shipped:demo.toml", "--out", str(run)]
        code = cli.main([*command, *(part for setting in sets for part in ("--set", setting))])
        if code == 0:
            describe({kind: read_rows(run, kind) for kind in ("data", "pool", "rejected")})
        raise SystemExit(code)


def describe(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Items per prompt, novelty by hundreds of admitted, classification, and instructions with a row."""
    pool, rejected = rows["pool"], rows["rejected"]
    refused = [row for row in rejected if row["stage"] in ("bootstrap", "filter", "novelty", "gate")]
    items = Counter(row["unit"] for row in [*pool, *refused])
    print(f"\nprompts {len(items)}, items per prompt {items.total() / len(items):.2f}")
    print(f"exactly seven items {sum(count == 7 for count in items.values()) / len(items):.0%} of prompts")
    for first in range(0, len(pool), 100):
        hundred = pool[first : first + 100]
        units = range(hundred[0]["unit"], hundred[-1]["unit"] + 1)
        near = sum(row["reason"] == "not_novel" and row["unit"] in units for row in rejected)
        print(f"novel, admitted {first + 1} to {first + len(hundred)}: {len(hundred) / (len(hundred) + near):.0%}")
    print(f"called classification {sum(bool(row['is_classification']) for row in pool) / len(pool):.0%}")
    with_rows = {row["instruction_id"] for row in rows["data"]}
    print(
        f"admitted with a row {len(with_rows) / len(pool):.0%}, rows per admitted {len(rows['data']) / len(pool):.2f}"
    )


if __name__ == "__main__":
    main()
