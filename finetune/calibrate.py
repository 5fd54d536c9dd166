"""Calibrate a base model on a log and save the engine.

    python finetune/calibrate.py --data completejourney --out llmrec/engines/completejourney

Everything is fitted on periods before the log's last one, so that the last one stays unseen: it is
what `llmrec demo` compares its forecasts with.
"""

from __future__ import annotations

import argparse

from llmrec import InterestEngine, load_dataset
from llmrec.data.periods import holdout_cutoff

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="ml-100k", help="what load_dataset takes")
parser.add_argument("--model", default="smollm2-135m", help="base model")
parser.add_argument("--windows", type=int, default=500, help="validation windows to read")
parser.add_argument("--out", required=True, help="engine folder to write")
arguments = parser.parse_args()

# 1. The log, and the time that nothing fitted may look beyond.
dataset = load_dataset(arguments.data)
cutoff = holdout_cutoff(dataset.log, dataset.period)

# 2. Counting and blend are fitted on the last period before it.
engine = InterestEngine.from_pretrained(arguments.model, data=dataset, cutoff=cutoff, refit=True)
print(f"counting: {engine.settings.counting}\nblend: {engine.settings.blend}")

# 3. The model reads the same windows; cross-validation decides how far it is trusted.
engine.fit(arguments.windows)
calibration = engine.forecaster.calibration
assert calibration is not None
print(f"a = {calibration.a:.4f}, gain {calibration.gain}, of the bias {calibration.bias_gain}")

engine.save_pretrained(arguments.out)
print(f"saved to {arguments.out}")
