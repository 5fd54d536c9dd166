"""What engines tell of the people of their fit: membership inference, and planted secrets.

Run: python -m benchmarks.safety.privacy --data ml-100k
"""

from __future__ import annotations

import argparse
from typing import get_args

from benchmarks.harness.formatting import Row
from benchmarks.harness.logs import evaluation_dataset
from benchmarks.harness.results import record_results, value_row
from llmrec.engine_settings import Effort
from llmrec.evaluation.canaries import plant_canaries
from llmrec.evaluation.membership import attack_engines


def main() -> None:
    """Attack engines fitted on halves of the people, and record what they tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--effort", choices=get_args(Effort), default="quick")
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--canaries", type=int, default=100)
    arguments = parser.parse_args()
    dataset = evaluation_dataset(arguments.data)
    keys: Row = {"dataset": dataset.name, "model": f"llmrec {arguments.effort}", "seeds": [0]}
    rows: list[Row] = []
    for one in attack_engines(dataset, arguments.effort, arguments.engines, show=print):
        for metric, found in (("membership auc", one.auc), ("members at 1 % others", one.found)):
            value, low, high = found
            row = value_row(keys | {"split": one.attacked}, metric, value, one.n_people)
            rows.append(row | {"low": low, "high": high})
    planted = plant_canaries(dataset, arguments.effort, arguments.canaries)
    extracted = {"list": planted.n_extracted, **planted.members}
    for name, n in extracted.items():
        split = {"split": f"canaries / {name}"}
        rows.append(value_row(keys | split, "secrets first", n, planted.n_canaries))
    record_results(f"safety/privacy_{dataset.name}", rows)


if __name__ == "__main__":
    main()
