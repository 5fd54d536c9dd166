"""Merge an adapter into its base model, if its logits stay the same.

    python finetune/merge_adapter.py --adapter FOLDER --data ml-100k --out FOLDER

The two are compared at the prompts of people from the log: every logit at the end of each prompt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from llmrec.data.options import ReadingOptions, add_reading_arguments
from llmrec.data.periods import make_histories, truncate_log
from llmrec.data.splits import with_catalog_of_training
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.codec import codec_for
from llmrec.language.model import LanguageModel
from llmrec.training.card import write_card
from llmrec.training.merge import merge_adapter

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--adapter", type=Path, required=True, help="adapter's folder")
parser.add_argument("--data", default="ml-100k", help="what load_dataset takes")
parser.add_argument("--model", help="base model (default: that of the adapter)")
parser.add_argument("--prompts", type=int, default=100, help="people whose prompts to compare at")
parser.add_argument("--tolerance", type=float, default=1e-3, help="largest change of a logit")
parser.add_argument("--out", type=Path, required=True, help="model folder to write")
add_reading_arguments(parser)
arguments = parser.parse_args()

# 1. The description of the adapter, and the log as it was when the adapter was trained.
about = AdapterMetadata.load(arguments.adapter)
name = arguments.model or about.base_model
reading = ReadingOptions.from_values(vars(arguments))
reading = reading.with_defaults(ReadingOptions.from_values(about.config))
dataset = with_catalog_of_training(reading.load(arguments.data))
log = truncate_log(dataset.log, about.cutoff)

# 2. Prompts of people drawn at random, in the version the adapter was trained on.
model = LanguageModel.load(name)
budget = about.config.get("budget", 300)
codec = codec_for(dataset, model, template=about.prompt, budget=budget)
about.require_compatible(model.base_fingerprint, codec.labels, codec.template)
users = np.random.default_rng(about.seed).permutation(log.n_users)[: arguments.prompts]
histories = make_histories(log, dataset.catalog, dataset.period, about.cutoff, users.tolist())
prompts = [codec.prompt(history) for history in histories]
del model

# 3. Merge, and compare the written model with the adapter beside its base model.
largest = merge_adapter(
    name,
    arguments.adapter,
    arguments.out,
    prompts,
    tolerance=arguments.tolerance,
)
write_card(arguments.out)
print(f"largest change of a logit at {len(prompts)} prompts: {largest:.2g}")
print(f"saved to {arguments.out}")
