"""Fine-tune a decoder or a T5 on a log's timelines, and save an engine that uses the result.

    python finetune/pairs.py --data ml-100k --out pairs/ml-100k
    python finetune/lora.py finetune/configs/smollm2-135m-ml-100k.yaml

Every field of the config is also a flag: --rate 5e-4 --lora.rank 8. A run that was cut off goes on
where its last checkpoint was. On several GPUs: accelerate launch finetune/lora.py CONFIG.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from accelerate import PartialState

from llmrec import InterestEngine, load_dataset
from llmrec.data.splits import was_trained_on
from llmrec.data.windows import holdout_cutoff
from llmrec.training.batches import LineDataset
from llmrec.training.config import generation_config, load_config, scoring_config
from llmrec.training.dataset import load_examples
from llmrec.training.loop import train
from llmrec.training.run import (
    VALIDATION_LINES,
    add_line_layers,
    build_timeline_model,
    cast_to_float16,
    line_validation,
    make_batches,
    make_validation,
    save_adapter_run,
)
from llmrec.training.trainer import check_device

logging.basicConfig(level=logging.INFO, format="%(message)s")
config = load_config(sys.argv[1], sys.argv[2:])
check_device(config)
out = Path(config.out)

# 1. The examples, and the log they were made of: one that changed since is refused.
manifest, parts = load_examples(Path(config.examples))
dataset = load_dataset(config.data).without_categories(manifest.without)
manifest.check(dataset)

# 2. The base model with a new adapter inside, and a readout that gives the prior back as it is.
model, adapted, reader = build_timeline_model(config, manifest)

# 3. Train; the parameters of least validation log-loss are kept, or with ``select: last`` the last.
training, held_out = make_batches(config, manifest, parts, model)
history = train(
    reader, training, make_validation(reader, held_out), scoring_config(config), out / "run"
)
best = history.metrics
PartialState().print(
    f"{history.stopped}; kept step {best['step']}: log-loss {best['log_loss']:.4f} on validation"
    f"{' (learned from)' * manifest.validated}, counting {best['counting']:.4f}"
)

# 4. Lines, where the layers above those that are read learn them: no reading changes by it.
if config.generation.epochs:
    writer = add_line_layers(config, adapted, reader)
    judged = line_validation(writer, LineDataset(held_out, VALIDATION_LINES))
    taught = train(writer, LineDataset(training), judged, generation_config(config), out / "lines")
    cast_to_float16(writer)
    best |= {"lines": taught.metrics}

# 5. The adapter, which says what it is.
if not PartialState().is_main_process:  # of several GPUs' processes one writes
    sys.exit()
adapter = save_adapter_run(out / "adapter", config, manifest, model, adapted, reader, best)

# 6. An engine with it: counting, ranking and calibration are fitted on the last period before the
#    newest one, which the demo compares with; of people whose windows there were not learned from.
cutoff = holdout_cutoff(dataset.log, dataset.period)
engine = InterestEngine.from_pretrained(
    config.model, data=dataset, cutoff=cutoff, adapter=adapter, refit=True, device=config.device
)
leave_out = was_trained_on(dataset, validated=manifest.validated)
engine.fit(config.calibration_windows, leave_out=leave_out)
engine.save_pretrained(out)
calibration = engine.forecaster.calibration
assert calibration is not None
gain, low, high = calibration.gain
print(f"blend: {engine.settings.blend}, tilted with {engine.settings.strength:g}")
print(f"a = {calibration.a:.4f}, gain {gain:.5f} nats an event, 95 % {low:.5f} to {high:.5f}")
print(f"saved to {out}: InterestEngine.from_pretrained({str(out)!r})")
