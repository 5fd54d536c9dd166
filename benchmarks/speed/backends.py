"""How fast other backends read prompts than torch, and what that does to forecasts.

People a CPU second are paired: the same prompts, in turn, on one thread. Forecasts are those of the
engine on validation windows, with the states of each backend under the engine's own calibration.
With --store the difference of each in log-loss is written into the engine's calibration.json, by
which the engine takes the backend without being calibrated again if it is at most .001 nats.

Run: python -m benchmarks.speed.backends --data ml-100k
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.results import record_results
from llmrec.data.counts import target_counts
from llmrec.data.files import file_hash
from llmrec.data.periods import Window
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows, split_windows
from llmrec.engine import InterestEngine
from llmrec.engine_folder import CALIBRATION_FILE, bundled_engine
from llmrec.engine_language import LoadedLanguage
from llmrec.engine_settings import SETTINGS_FILE, EngineSettings
from llmrec.language.model import LanguageModel
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray

BACKENDS: dict[str, dict[str, Any]] = {
    "float32": {"backend": "openvino"},
    "bfloat16": {"backend": "openvino", "dtype": "bfloat16"},
    "8bit": {"backend": "openvino", "quantize": "8bit"},
}


def main() -> None:
    """Time and compare the backends on the windows of one of the shipped engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--people", type=int, default=150)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--store", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(arguments.data)
    engine = InterestEngine.from_pretrained(data=dataset, describe=False)
    language = engine.language
    assert language is not None
    assert language.calibration is not None
    models = {
        name: LanguageModel.load(
            language.model.name, adapter=Path(language.model.adapter), **options
        )
        for name, options in BACKENDS.items()
    }
    models = {"torch": language.model, **models}
    windows = sample_windows(split_windows(dataset)["validation"], arguments.windows)
    rates = _rates(language, models, windows[: arguments.people], arguments.rounds)
    weights = {name: _weights(engine, language, model, windows) for name, model in models.items()}
    keys = {"dataset": arguments.data, "split": "validation", "seeds": [0]}
    rows, differences = [], {}
    for name in BACKENDS:
        ratios = rates[name] / rates["torch"]
        gains = log_loss(weights[name], target_counts(windows))
        gains = gains - log_loss(weights["torch"], target_counts(windows))
        mean, low, high = bootstrap_interval(gains)
        differences[models[name].fingerprint] = mean
        moved = float(np.abs(weights[name] - weights["torch"]).max())
        of_people = {"model": f"openvino {name}", "n": arguments.people}
        of_windows = {"model": f"openvino {name}", "n": len(windows)}
        none = {"low": None, "high": None}
        speed = {"value": np.median(ratios), "low": ratios.min(), "high": ratios.max()}
        loss = {"value": mean, "low": low, "high": high}
        rows += [
            keys | of_people | {"metric": "people a CPU second, ratio to torch"} | speed,
            keys | of_windows | {"metric": "log-loss minus that of torch"} | loss,
            keys | of_windows | none | {"metric": "largest change of a weight", "value": moved},
        ]
    rows.append(
        keys
        | {"model": "torch float32", "n": arguments.people, "metric": "people a CPU second"}
        | {"value": np.median(rates["torch"]), "low": None, "high": None}
    )
    record_results(f"speed/backends_{arguments.data}", rows)
    if arguments.store:
        _store(arguments.data, language, differences)


def _rates(
    language: LoadedLanguage,
    models: Mapping[str, LanguageModel],
    windows: Sequence[Window],
    rounds: int,
) -> dict[str, FloatArray]:
    """Measure (rounds,) people a CPU second of each model, prompts to states."""
    prompts = [language.codec.prompt(window.history) for window in windows]
    head = language.model.category_head
    assert head is not None
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for run in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            model.final_states(prompts, head.depth)
            if run:  # the first pays for what is set up once
                seconds[name].append(time.process_time() - start)
    return {name: len(prompts) / np.array(taken) for name, taken in seconds.items()}


def _weights(
    engine: InterestEngine,
    language: LoadedLanguage,
    model: LanguageModel,
    windows: Sequence[Window],
) -> FloatArray:
    """Give the engine's (n_windows, n_categories) forecasts with the states of another model."""
    other = replace(language, model=model)
    forecaster = other.forecaster(engine.prior, engine.settings.titles)
    found = forecaster.forecast([window.history for window in windows])
    return np.stack([forecast.category_weights for forecast in found])


def _store(data: str, language: LoadedLanguage, differences: Mapping[str, float]) -> None:
    """Write the measured differences into the calibration of a shipped engine."""
    assert language.calibration is not None
    path, file = (bundled_engine(data) / name for name in (CALIBRATION_FILE, SETTINGS_FILE))
    others = {key: value for key, value in differences.items() if key != language.calibration.model}
    replace(language.calibration, equivalents=others).save(path)
    settings = EngineSettings.load(file, verify=False)
    replace(settings, parts={**settings.parts, CALIBRATION_FILE: file_hash(path)}).save(file)


if __name__ == "__main__":
    main()
