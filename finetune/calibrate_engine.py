"""Calibrate a base model, or one with an adapter, on a log and save the engine.

    python finetune/calibrate_engine.py --data completejourney --out engines/completejourney
    python finetune/calibrate_engine.py --adapter llmrec/engines/ml-100k/adapter

The second one fits an engine again, around its adapter: the model, the log and its categories are
those that the adapter was trained with (the log read as then), and windows that it was trained on
are left out.
Everything is fitted on periods before the log's last one, so that the last one stays unseen: it is
what `llmrec demo` compares its forecasts with.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from llmrec import InterestEngine
from llmrec.data.embedded import is_embedded
from llmrec.data.options import ReadingOptions, add_reading_arguments
from llmrec.data.provenance import has_fingerprint
from llmrec.data.splits import was_trained_on, with_catalog_of_training
from llmrec.data.windows import holdout_cutoff
from llmrec.engine_settings import Effort
from llmrec.language.adapters import SEEN_METRICS, AdapterMetadata

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="what load_dataset takes (default: the log of the adapter)")
parser.add_argument("--model", default="smollm2-135m", help="base model, if there is no adapter")
parser.add_argument("--adapter", type=Path, help="an adapter's folder inside an engine's")
parser.add_argument("--effort", default="standard", choices=get_args(Effort), help="of the fit")
parser.add_argument("--without", default="", help="members not to use, with commas between")
parser.add_argument("--windows", type=int, default=500, help="validation windows to score")
parser.add_argument("--out", type=Path, help="engine folder to write (default: the adapter's own)")
add_reading_arguments(parser)
arguments = parser.parse_args()
if not (arguments.out or arguments.adapter):
    parser.error("give --out, or an --adapter whose engine is to be written again")

# 1. The log, the end of what may be fitted on, and the windows that an adapter was trained on.
about = AdapterMetadata.load(arguments.adapter) if arguments.adapter else None
reading = ReadingOptions.from_values(vars(arguments))
if about:
    reading = reading.with_defaults(ReadingOptions.from_values(about.config))
dataset = with_catalog_of_training(
    reading.load(arguments.data or (about.dataset if about else "ml-100k"))
)
model, leave_out = about.base_model if about else arguments.model, None
if about:
    excluded = sorted(set(dataset.catalog.categories) - set(about.categories))
    dataset = dataset.without_categories(excluded)
    if not has_fingerprint(dataset, about.data_fingerprint):
        parser.error(f"{dataset.name} changed since the adapter was trained on it: train it again")
    leave_out = was_trained_on(dataset, include_validation=SEEN_METRICS in about.metrics)
cutoff = holdout_cutoff(dataset.log, dataset.period)

# 2. The model, with its adapter, on the log before it.
engine = InterestEngine.from_pretrained(
    model, data=dataset, cutoff=cutoff, refit=True, adapter=arguments.adapter
)

# 3. What forecasts and ranks is fitted, and judged on the last period. The model scores the same
#    windows; cross-validation chooses the weight of its scores. Title probabilities, if it gives
#    them, join the blend where they help.
engine.fit(
    arguments.effort,
    use_llm=True,
    n_windows=arguments.windows,
    leave_out=leave_out,
    without=[name for name in arguments.without.split(",") if name],
    show=lambda line: print(line, flush=True),
)
calibration = engine.forecaster.calibration
assert calibration is not None
print(f"forecast: {engine.settings.report['forecast']['reason']}")
print(f"blend: {engine.blend.named_weights}, strength of the tilt {engine.settings.strength:g}")
print(f"a = {calibration.a:.4f}, gain {calibration.gain}, of the bias {calibration.bias_gain}")

out = arguments.out or arguments.adapter.parent
# Whoever loads the engine of an embedded log has its catalog, whose titles may not be handed on.
engine.save_pretrained(out, with_catalog=not is_embedded(dataset.name))
print(f"saved to {out}")
