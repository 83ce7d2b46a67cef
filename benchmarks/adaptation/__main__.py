"""`make bench-adaptation`: trained, retrieved or prompted, in one table of real data.

Each stage runs in child processes, one at a time, and is kept under var/bench/adaptation: a second
start goes on, FRESH=1 begins anew. ONLY="domain spam" selects stages. Rows go to
var/bench/adaptation.json, the table to var/bench/adaptation.md, and with DOCS=1 to
docs/reference/adaptation-benchmark.md too. Exit status 1 where a row misses what it should reach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time

from benchmarks.adaptation.data import ROOT
from benchmarks.adaptation.report import markdown, terminal
from training.engine.errors import EngineError, Interrupted
from training.engine.tether import EXIT_INTERRUPTED

OUT = ROOT / "var" / "bench" / "adaptation"
PAGE = ROOT / "docs" / "reference" / "adaptation-benchmark.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        from benchmarks.adaptation.children import CHILDREN

        name, *arguments = asked.child
        print("\n" + json.dumps(CHILDREN[name](*arguments)))
        return 0
    from benchmarks.adaptation.stages import STAGES, Bench, Row

    names = os.environ.get("ONLY", "").split() or list(STAGES)
    if unknown := [name for name in names if name not in STAGES]:
        sys.exit(f"bench: no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if os.environ.get("FRESH"):
        shutil.rmtree(OUT, ignore_errors=True)
    bench = Bench(OUT)
    rows: list[Row] = []
    started = time.monotonic()
    for name in names:
        print(f"{name}: {(STAGES[name].__doc__ or '').strip()}", flush=True)
        try:
            found = STAGES[name](bench)
        except Interrupted as error:
            print(f"bench: {error}", file=sys.stderr)
            return EXIT_INTERRUPTED
        except EngineError as error:
            found = [Row(name, "the stage", {}, reach="an end", missed=f"failed: {error}")]
        rows += found
        print("\n".join(map(terminal, found)), flush=True)
    minutes = (time.monotonic() - started) / 60
    missed = [row for row in rows if row.missed]
    whole = {"stages": names, "minutes": round(minutes, 1), "rows": [row.as_json() for row in rows]}
    beside = OUT.with_suffix(".json")
    beside.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page = markdown(rows)
    OUT.with_suffix(".md").write_text(page, encoding="utf-8")
    if os.environ.get("DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    print(f"{len(rows)} rows in {minutes:.1f} minutes, {len(missed)} missed; {beside}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
