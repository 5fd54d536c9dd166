"""Train a small model on several logs at once: a base model that finetune/lora.py adapts to one.

    python finetune/pretrain.py finetune/configs/t5-mini.yaml

All parameters are trained, so ``lora`` and ``titles`` have no effect here. It starts from random
parameters, as a T5 (``model: new``) or a decoder (``model: new-decoder``), or from an existing
model: --model google/flan-t5-small, or a folder. ``data`` lists the logs; synthetic-3 is a
synthetic one of seed 3. Every field of the config is also a flag. An interrupted run continues from
its last checkpoint.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch

from llmrec.data.files import atomic_write_text
from llmrec.language.heads import CategoryHead
from llmrec.language.model import LanguageModel
from llmrec.training.batches import TimelineBatches
from llmrec.training.config import load_command_config
from llmrec.training.loop import train
from llmrec.training.preflight import check_pretraining
from llmrec.training.pretrain import (
    NEW_MODELS,
    MultiDatasetBatches,
    MultiDatasetModel,
    examples_for,
    multi_dataset_validation,
    training_texts,
)
from llmrec.training.run import check_layers
from llmrec.training.trainer import check_device

logging.basicConfig(level=logging.INFO, format="%(message)s")
config = load_command_config(__doc__)
check_device(config)
out = Path(config.out)

# 1. Timelines of each log; those that are on disk already are read.
examples = {log: examples_for(config, log) for log in config.data.split()}

# 2. The model to start from: the tokenizer of a new one is trained on the texts of the logs.
start = config.model
if build_model := NEW_MODELS.get(start):
    start = str(out / "start")
    if not (Path(start) / "model.safetensors").exists():
        texts = [text for _, parts in examples.values() for text in training_texts(parts)]
        untrained, tokenizer = build_model(texts, seed=config.seed)
        tokenizer.save_pretrained(start)
        untrained.save_pretrained(start)
model = LanguageModel.load(start, device=config.device, dtype=config.dtype)
check_layers(config, model.model)
print(f"{model.model.num_parameters():,} parameters, {len(model.tokenizer):,} tokens")

# 3. One category head for all logs, and batches of each.
torch.manual_seed(config.seed)
width = model.model.get_input_embeddings().weight.shape[1]
multi_dataset_model = MultiDatasetModel(
    model,
    CategoryHead(width, config.head_rank).to(model.model.device),
    {log: manifest.labels for log, (manifest, _) in examples.items()},
    line_weight=config.line_weight,
)
size, seed = config.batch_positions, config.seed
training = {
    log: TimelineBatches(
        parts["train"],
        model,
        batch_positions=size,
        line_share=config.line_share,
        labels=manifest.labels,
        label_renaming=config.label_renaming,
        seed=seed,
    )
    for log, (manifest, parts) in examples.items()
}
held_out = {
    log: TimelineBatches(parts["validation"], model, batch_positions=2 * size)
    for log, (_, parts) in examples.items()
}

# 4. What would make the training worthless is found here, in seconds.
check_pretraining(config, examples, model, multi_dataset_model, training)

# 5. Train; the parameters of the lowest mean validation log-loss are kept.
validate = multi_dataset_validation(multi_dataset_model, held_out)
batches = MultiDatasetBatches(training, seed)
inputs = {f"set of examples of {log}": one.fingerprint for log, (one, _) in examples.items()}
history = train(multi_dataset_model, batches, validate, config, out / "run", inputs)

# 6. The base model, and its category head beside it.
model.model.save_pretrained(out / "model")
model.tokenizer.save_pretrained(out / "model")
multi_dataset_model.category_head.save(out / "model")
atomic_write_text(out / "model" / "pretraining.json", json.dumps(history.metrics, indent=1))
print(f"{history.metrics}\nsaved to {out / 'model'}: finetune/lora.py --model {out / 'model'}")
