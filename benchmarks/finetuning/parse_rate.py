"""How often a generated forecast line parses, with and without the grammar, on real prompts.

Run: python -m benchmarks.finetuning.parse_rate
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from benchmarks.harness.results import record_results
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows, split_windows
from llmrec.errors import ForecastParseError
from llmrec.language.codec import Codec, codec_for
from llmrec.language.model import LanguageModel


def main() -> None:
    """Generate lines for n prompts of a log both ways and count what parses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k", help="ml-100k or completejourney")
    parser.add_argument("--prompts", type=int, default=250)
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    model = LanguageModel.load(arguments.model)
    dataset = load_dataset(arguments.data)
    codec = codec_for(dataset, model)
    windows = sample_windows(split_windows(dataset)["validation"], arguments.prompts)
    prompts = [codec.prompt(window.history) for window in windows]
    rows = []
    for way, grammar in (("constrained", codec.line.grammar()), ("unconstrained", None)):
        lines = model.generate(prompts, constrain=grammar, max_new_tokens=64)
        outcomes = Counter(parse_outcome(codec, line.text) for line in lines)
        print(way, dict(outcomes), f"example: {lines[0].text!r}", flush=True)
        n, parsed = len(lines), outcomes["parsed"]
        low, high = wilson_interval(parsed, n)
        forced = sum(line.n_forced for line in lines) / sum(line.n_tokens for line in lines)
        keys = {"dataset": arguments.data, "split": "validation", "model": way, "n": n}
        keys["seeds"] = [0]
        rate = {"metric": "parse_rate", "value": parsed / n, "low": low, "high": high}
        share = {"metric": "forced_tokens", "value": forced, "low": None, "high": None}
        rows += [keys | rate, keys | share]
    record_results(f"finetuning/parse_rate_{arguments.data}", rows)


def parse_outcome(codec: Codec, line: str) -> str:
    """Give "parsed", or the reason why a line does not parse."""
    try:
        codec.line.parse(line)
    except ForecastParseError as error:
        return error.reason
    return "parsed"


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, round(middle - half, 12)), min(1.0, round(middle + half, 12))


if __name__ == "__main__":
    main()
