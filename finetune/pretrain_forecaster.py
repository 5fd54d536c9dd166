"""Train the nets of PretrainedForecaster over real logs, their re-cuts and made-up logs.

    python finetune/pretrain_forecaster.py finetune/configs/pretrained-forecaster.yaml

Every field of the config is also a flag. An interrupted run continues: panels of features are on
disk in ``work``, and nets from their last checkpoint. Nothing is done twice, so that the same
command also writes the card again, with figures that were measured since.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from llmrec.forecasters.cell_nets import ALL_LOGS
from llmrec.training.forecaster_pretraining import (
    PretrainingConfig,
    available_logs,
    panels_of_log,
    panels_of_made_up_logs,
    save_nets,
    train_without,
    write_card,
)
from llmrec.training.typed_config import argument_parser, load_typed

logging.basicConfig(level=logging.INFO, format="%(message)s")
arguments = sys.argv[1:]
if not arguments or {"-h", "--help"} & set(arguments):
    print(f"{__doc__}\n{argument_parser(PretrainingConfig).format_help()}")
    sys.exit(0 if arguments else 2)
config = load_typed(PretrainingConfig, Path(arguments[0]), arguments[1:])
torch.set_num_threads(1)  # the nets are small: more threads only wait for each other

# 1. Features and targets of each log, of its re-cuts and of made-up logs; those on disk are read.
logs = available_logs(config)
families: dict[str, list[list]] = {}
for family, panels in tqdm(
    (found for log in logs for found in panels_of_log(config, log)),
    "panels of logs",
    disable=not sys.stderr.isatty(),
):
    families.setdefault(family, []).append(panels)
for family, panels in panels_of_made_up_logs(config):
    families.setdefault(family, []).append(panels)
families = {family: [one for one in found if one] for family, found in families.items()}
for family, found in families.items():
    n = sum(len(panel.shares) for panels in found for panel in panels)
    print(f"{family}: {len(found)} logs, {n:,} people and times", flush=True)

# 2. Nets of all logs, and nets that have not seen one of them.
nets = []
for left_out in [ALL_LOGS, *(log.label for log in logs)]:
    start = time.process_time()
    nets.append(train_without(config, families, left_out))
    print(f"left out {left_out}: {time.process_time() - start:.0f} CPU seconds", flush=True)

# 3. One file, and its card.
out = Path(config.out)
titles = {log.label: [t for d in log.datasets() for t in d.catalog.titles] for log in logs}
save_nets(out, nets, titles)
write_card(out, config, logs)
print(f"saved to {out}")
