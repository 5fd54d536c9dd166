"""Fine-tune a decoder or a T5 on a log's timelines, and save an engine that uses the result.

    python finetune/make_dataset.py --data ml-100k --out examples/ml-100k
    python finetune/lora.py finetune/configs/smollm2-135m-ml-100k.yaml

Every field of the config is also a flag: --learning_rate 5e-4 --lora.rank 8. An interrupted run
continues from its last checkpoint. On several GPUs: accelerate launch finetune/lora.py CONFIG.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from accelerate import PartialState

from llmrec import InterestEngine
from llmrec.data.splits import was_trained_on, with_catalog_of_training
from llmrec.data.windows import holdout_cutoff
from llmrec.training.batches import LineDataset
from llmrec.training.config import (
    generation_config,
    load_command_config,
    scoring_config,
)
from llmrec.training.dataset import load_examples
from llmrec.training.loop import train
from llmrec.training.preflight import check_data, check_line_run, check_scoring_run
from llmrec.training.run import (
    VALIDATION_LINES,
    add_line_layers,
    build_timeline_model,
    cast_to_float16,
    line_validation,
    make_batches,
    make_validation,
    save_adapter_run,
    with_reading_of_examples,
)
from llmrec.training.trainer import check_device

logging.basicConfig(level=logging.INFO, format="%(message)s")
config = load_command_config(__doc__)
check_device(config)
out = Path(config.out)

# 1. The examples, and the log they were made of, read as then: one that changed since is refused.
manifest, parts = load_examples(Path(config.examples))
config = with_reading_of_examples(config, manifest)
dataset = with_catalog_of_training(config.reading.load(config.data))
dataset = dataset.without_categories(manifest.without)
manifest.check(dataset)

# 2. The base model with a new adapter inside, and a category head that changes nothing yet.
model, adapted, timeline_model = build_timeline_model(config, manifest)

# 3. What would make the training worthless is found here, in seconds: the README lists it.
check_data(manifest, parts, dataset, model)
training, held_out = make_batches(config, manifest, parts, model)
check_scoring_run(config, manifest, model, timeline_model, training)

# 4. Train; the parameters of the lowest validation log-loss are kept, or the last ones with
#    ``keep_checkpoint: last``.
validate = make_validation(timeline_model, held_out)
inputs = {"set of examples": manifest.fingerprint}
history = train(timeline_model, training, validate, scoring_config(config), out / "run", inputs)
metrics = history.metrics
PartialState().print(
    f"{history.stopped}; kept step {metrics['step']}: log-loss {metrics['log_loss']:.4f} on "
    f"validation{' (trained on)' * manifest.validated}, counting {metrics['counting']:.4f}"
)

# 5. Lines, if layers above those that score categories are trained for them: scores stay the same.
if config.generation.epochs:
    line_model = add_line_layers(config, adapted, timeline_model)
    validate = line_validation(line_model, LineDataset(held_out, VALIDATION_LINES))
    lines = LineDataset(training)
    check_line_run(config, model, line_model, lines)
    line_history = train(
        line_model, lines, validate, generation_config(config), out / "lines", inputs
    )
    cast_to_float16(line_model)
    metrics |= {"lines": line_history.metrics}

# 6. The adapter, with a description of itself.
if not PartialState().is_main_process:  # of several GPUs' processes one writes
    sys.exit()
adapter = save_adapter_run(
    out / "adapter", config, manifest, model, adapted, timeline_model, metrics
)

# 7. An engine with it: counting, ranking and calibration are fitted on the last period before the
#    newest one, which the demo compares with, and on people whose windows were not trained on.
cutoff = holdout_cutoff(dataset.log, dataset.period)
engine = InterestEngine.from_pretrained(
    config.model, data=dataset, cutoff=cutoff, adapter=adapter, refit=True, device=config.device
)
leave_out = was_trained_on(dataset, include_validation=manifest.validated)
engine.fit(
    use_llm=True, n_windows=config.calibration_windows, seed=config.seed, leave_out=leave_out
)
engine.save_pretrained(out)
calibration = engine.forecaster.calibration
assert calibration is not None
gain, low, high = calibration.gain
print(f"blend: {engine.blend.named_weights}, strength of the tilt {engine.settings.strength:g}")
print(f"a = {calibration.a:.4f}, gain {gain:.5f} nats an event, 95 % {low:.5f} to {high:.5f}")
print(f"saved to {out}: InterestEngine.from_pretrained({str(out)!r})")
