"""Cut a log into timelines, and write them to disk as examples to fine-tune on.

    python finetune/make_dataset.py --data ml-100k --out examples/ml-100k

The newest part of the log, which `llmrec demo` compares its forecasts with, stays unseen, and so do
all validation and test targets of `llmrec evaluate`. Once validation has chosen when to stop,
--include-validation makes examples that hold its targets too, for a last run with
``keep_checkpoint: last``. The manifest records how the log was read, and lora.py reads it so again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmrec.data.options import ReadingOptions, add_reading_arguments
from llmrec.data.splits import split_timelines, with_catalog_of_training
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import codec_for
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import tokenizer_fingerprint
from llmrec.training.dataset import save_examples

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="ml-100k", help="what load_dataset takes")
parser.add_argument("--model", default="smollm2-135m", help="its tokenizer counts the budget")
parser.add_argument("--template", default="forecast-v3", help="prompt version")
parser.add_argument("--budget", type=int, default=130, help="positions that a prompt may have")
parser.add_argument("--people", type=int, help="use the first so many people (default: all)")
parser.add_argument("--exclude-categories", default="", help="categories to leave out, A|B|C")
parser.add_argument(
    "--include-validation", action="store_true", help="train on validation targets too"
)
parser.add_argument("--seed", type=int, default=0, help="of the wording of lines")
parser.add_argument("--out", type=Path, required=True, help="folder to write")
# The names that two of these had in version 0.1.
parser.add_argument("--without", dest="exclude_categories", help=argparse.SUPPRESS)
parser.add_argument(
    "--validated", dest="include_validation", action="store_true", help=argparse.SUPPRESS
)
add_reading_arguments(parser)
arguments = parser.parse_args()

# 1. The log.
excluded = [name for name in arguments.exclude_categories.split("|") if name]
reading = ReadingOptions.from_values(vars(arguments))
dataset = with_catalog_of_training(reading.load(arguments.data))
dataset = dataset.without_categories(excluded)

# 2. Everybody's windows at the end of every tick, and the windows that choose when to stop.
people, validation = split_timelines(dataset, include_validation=arguments.include_validation)
people = people[: arguments.people]

# 3. Counting, which category scores are added to, and the text that the model sees.
prior = DecayedDirichlet().fit(validation)
model = LanguageModel.load(arguments.model)
codec = codec_for(dataset, model, template=arguments.template, budget=arguments.budget)

manifest = save_examples(
    arguments.out,
    dataset,
    codec,
    prior,
    people,
    validation,
    seed=arguments.seed,
    exclude_categories=excluded,
    include_validation=arguments.include_validation,
    reading=reading,
    tokenizer=tokenizer_fingerprint(model.tokenizer),
)
print(
    f"{manifest.n_timelines} timelines, {manifest.n_slots} read positions, {len(validation)} "
    f"validation windows\ntargets end before {manifest.cutoff}; saved to {arguments.out}"
)
