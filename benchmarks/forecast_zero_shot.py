"""Does reading an untuned LLM help? Counting, the LLM, and both calibrated, on both embedded logs.

Everything is tuned on validation windows; tests are read once.

Run: python -m benchmarks.forecast_zero_shot
"""

from __future__ import annotations

import argparse

from benchmarks.record import record
from llmrec.data.readers import load_dataset
from llmrec.evaluation.report import compare
from llmrec.language.model import LanguageModel


def main() -> None:
    """Compare on n users of each split and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=400, help="windows drawn from each split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    model = LanguageModel.load(arguments.model)
    rows = []
    for name in ("ml-100k", "completejourney"):
        table, calibration = compare(load_dataset(name), model, arguments.users, arguments.seed)
        rows += [row | {"seeds": [arguments.seed]} for row in table.to_dict("records")]
        if calibration is not None:
            mean, low, high = calibration.gain
            found = {
                "a": (calibration.a, None, None),
                "held_out_gain_of_reading": (mean, low, high),
            }
            found["held_out_gain_of_bias"] = calibration.bias_gain
            rows += [
                {
                    "dataset": name,
                    "split": "validation",
                    "model": "LLM calibrated",
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": calibration.n,
                    "seeds": [arguments.seed],
                }
                for metric, (value, low, high) in found.items()
            ]
    record("forecast_zero_shot", rows)


if __name__ == "__main__":
    main()
