"""What a first run costs: wall time and memory of ``llmrec demo``, and of the import.

Run: python -m benchmarks.speed.first_run
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from benchmarks.harness.results import record_results


def main() -> None:
    """Run each command as a whole process."""
    rows = []
    imports = [_seconds([sys.executable, "-c", "import llmrec"]) for _ in range(5)]
    bare = [_seconds([sys.executable, "-c", "pass"]) for _ in range(5)]
    rows.append(_row("import llmrec", "seconds", min(imports), 5))
    rows.append(_row("bare interpreter", "seconds", min(bare), 5))
    wall = _seconds([sys.executable, "-m", "llmrec", "demo", "--out", "llmrec-demo"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    rows += [_row("llmrec demo", "seconds", wall, 1), _row("llmrec demo", "peak_gib", peak, 1)]
    record_results("speed/first_run", rows)


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _row(model: str, metric: str, value: float, n: int) -> dict[str, object]:
    keys = {"dataset": "both", "split": "none", "low": None, "high": None, "seeds": [0]}
    return keys | {"model": model, "metric": metric, "value": value, "n": n}


if __name__ == "__main__":
    main()
