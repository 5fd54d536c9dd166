"""The logs that the nets of `PretrainedForecaster` are trained on, and the files they make."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from llmrec.errors import DataError, MissingExtraError

try:
    from pydantic import BaseModel, ConfigDict, Field
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

import numpy as np
from safetensors.numpy import save

from llmrec.data.dataset import Dataset
from llmrec.data.embedded import EMBEDDED_PARTS, is_embedded
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.readers import load_dataset
from llmrec.forecasters.cell_nets import (
    ALL_LOGS,
    METADATA_KEY,
    NETS_FILE,
    CellNets,
    hash_titles,
)
from llmrec.forecasters.cell_training import CellTrainingPlan, train_cell_nets
from llmrec.training.cell_panels import Panel, make_panels
from llmrec.training.random_logs import make_random_log
from llmrec.training.recuts import recut

logger = logging.getLogger(__name__)
MADE_UP = "made-up logs"
CARD_FILE = "README.md"
RECUT_PANELS, RECUT_PEOPLE, MADE_UP_PANELS, MADE_UP_PEOPLE = 6, 300, 4, 200
SHORT_SHARE = 0.2  # of the people, whose histories are cut to a few periods
_STRICT = ConfigDict(extra="forbid", frozen=True)


class TrainingLog(BaseModel):
    """One log to train on.

    Attributes
    ----------
    data
        What `load_dataset` takes; variables of the environment are put in. A path that does not
        exist is left out of the training, with a warning.
    name
        What it is called; default: ``data``.
    periods
        Period lengths that it is cut into.
    clusters
        Where its items have titles alone: how many clusters of these are categories, one after the
        other; re-cuts are made of the last.
    licence
        Its terms, in a sentence; those of an embedded log are known.
    """

    model_config = _STRICT

    data: str
    name: str = ""
    periods: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    clusters: Annotated[tuple[int, ...], Field(strict=False)] = ()
    licence: str = ""

    @property
    def path(self) -> str:
        """What `load_dataset` takes, with variables put in."""
        return os.path.expandvars(self.data)

    @property
    def label(self) -> str:
        """What the log is called."""
        return self.name or self.data

    @property
    def terms(self) -> str:
        """Its licence."""
        known = {part.name: part.licence for part in EMBEDDED_PARTS}
        return self.licence or known.get(self.data, "those of its source")

    def is_there(self) -> bool:
        """Whether it is embedded or a file that exists."""
        return is_embedded(self.path) or Path(self.path).exists()

    def datasets(self) -> Iterator[Dataset]:
        """Read it, with each number of clusters."""
        for clusters in self.clusters or (None,):
            options: dict[str, Any] = {} if clusters is None else {"clusters": clusters}
            yield replace(load_dataset(self.path, **options), name=self.label)


class PretrainingConfig(BaseModel):
    """What nets are trained on, how, and where they are written.

    Attributes
    ----------
    logs
        The real logs; for each of them nets are trained without it, too, so that what they say of
        it can be judged.
    out, work
        Folder of the nets and their card, and of what is computed on the way.
    figures
        Result file of benchmarks/forecasting/pretrained.py, for the card; "" or missing: none.
    panels, people
        Times that a log is cut at for each period length, and people in each, at most.
    recuts, made_up_logs
        How often each log is cut anew, and how many logs are made up.
    n_nets, width, depth, steps, learning_rate, dropout, log_dropout, seed
        See `CellTrainingPlan`.
    """

    model_config = _STRICT

    logs: Annotated[tuple[TrainingLog, ...], Field(strict=False, min_length=1)]
    out: str = Field(min_length=1)
    work: str = Field(min_length=1)
    figures: str = ""
    panels: int = Field(default=8, ge=1)
    people: int = Field(default=500, ge=1)
    recuts: int = Field(default=24, ge=0)
    made_up_logs: int = Field(default=148, ge=0)
    n_nets: int = Field(default=3, ge=1)
    width: int = Field(default=48, ge=1)
    depth: int = Field(default=2, ge=1)
    steps: int = Field(default=4_000, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    log_dropout: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @property
    def plan(self) -> CellTrainingPlan:
        """How nets are trained."""
        names = CellTrainingPlan.__dataclass_fields__
        return CellTrainingPlan(**{n: getattr(self, n) for n in names if hasattr(self, n)})


def available_logs(config: PretrainingConfig) -> list[TrainingLog]:
    """Give the logs that are there; DataError if none is."""
    found = [log for log in config.logs if log.is_there()]
    for log in config.logs:
        if log not in found:
            logger.warning("%s is left out: there is no %s", log.label, log.path)
    if not found:
        raise DataError(f"none of the logs is there: {[log.path for log in config.logs]}")
    return found


def panels_of_log(config: PretrainingConfig, log: TrainingLog) -> Iterator[tuple[str, list[Panel]]]:
    """Yield family and panels of a log for each of its periods, and of its re-cuts."""
    dataset = None
    for dataset in log.datasets():
        for period in log.periods:
            one = replace(dataset, period=period)
            yield log.label, _panels(config, one, config.panels, config.people, 0)
    assert dataset is not None
    for number in range(config.recuts):
        seed = config.seed + number
        yield (
            f"re-cuts of {log.label}",
            _panels(config, recut(dataset, seed), RECUT_PANELS, RECUT_PEOPLE, seed),
        )


def panels_of_made_up_logs(config: PretrainingConfig) -> Iterator[tuple[str, list[Panel]]]:
    """Yield family and panels of each made-up log."""
    for number in range(config.made_up_logs):
        seed = 5_000 + config.seed + number
        dataset = make_random_log(seed)
        yield MADE_UP, _panels(config, dataset, MADE_UP_PANELS, MADE_UP_PEOPLE, seed)


def train_without(
    config: PretrainingConfig, families: Mapping[str, Sequence[Sequence[Panel]]], left_out: str
) -> CellNets:
    """Train nets on all families but those of one log; nets that are there already are read."""
    skipped = {left_out, f"re-cuts of {left_out}"}
    sources = {name: logs for name, logs in families.items() if name not in skipped}
    paths = {
        name: [str(panel.path) for panels in logs for panel in panels]
        for name, logs in sorted(sources.items())
    }
    key = _hash([asdict(config.plan), paths])
    checkpoint = Path(config.work) / "nets" / f"{left_out.replace(' ', '-')}-{key}.safetensors"
    return train_cell_nets(sources, config.plan, checkpoint, left_out)


def save_nets(folder: Path, nets: Sequence[CellNets], titles: Mapping[str, Sequence[str]]) -> None:
    """Write nets, and hashes of their logs' titles, as `PretrainedNets.load` reads them."""
    arrays: dict[str, Any] = {
        f"{one.left_out}/{name}": np.ascontiguousarray(array)
        for one in nets
        for name, array in one.arrays().items()
    }
    arrays |= {f"titles/{name}": hash_titles(texts) for name, texts in titles.items()}
    about = {METADATA_KEY: json.dumps(sorted(titles))}
    atomic_write_bytes(folder / NETS_FILE, save(arrays, about))


def _panels(
    config: PretrainingConfig, dataset: Dataset, n_panels: int, max_people: int, seed: int
) -> list[Panel]:
    """Make the panels of a log, or read them."""
    about = [
        dataset.log.fingerprint,
        dataset.catalog.n_categories,
        dataset.period,
        n_panels,
        max_people,
        seed,
    ]
    folder = Path(config.work) / "panels" / f"{dataset.name}-{_hash(about)}"
    return make_panels(
        dataset, folder, n_panels=n_panels, max_people=max_people, short=SHORT_SHARE, seed=seed
    )


def write_card(folder: Path, config: PretrainingConfig, logs: Sequence[TrainingLog]) -> None:
    """Write README.md beside the nets: what they are, what they were trained on, and how good."""
    plan, rows = config.plan, _read_figures(Path(config.figures)) if config.figures else []
    table = "\n".join(f"| {log.label} | {', '.join(log.periods)} | {log.terms} |" for log in logs)
    measured = "\n".join(rows) or "Nothing was measured."
    size = (folder / NETS_FILE).stat().st_size
    text = f"""# Nets of PretrainedForecaster

{plan.n_nets} nets of {plan.depth} layers of {plan.width} units, whose corrections of counting are
averaged; the same for every person and every category of any log. Nothing of them is trained on
the log that they forecast. {size:,} bytes: beside the nets of {ALL_LOGS} there are some that were
trained without each log. These are used on that log, so that what they say of it can be judged.

## Trained on

| log | periods | terms |
|---|---|---|
{table}

Besides, {config.recuts} re-cuts of each (categories merged, people and events left out, other
periods), and {config.made_up_logs} made-up logs. The nets hold no rows, people or titles; of titles
there are 32-bit hashes, by which a log is known again.

## Measured

Gain in nats per event over counting that is fitted on the log; nets trained without it:

{measured}

## How they were trained

Cross-entropy; AdamW with a rate of {plan.learning_rate:g} over one cycle; {plan.steps:,} steps of
about {plan.cells:,} cells; families of logs drawn equally; parameters averaged over the last steps;
seed {plan.seed}. Again:

    python finetune/pretrain_forecaster.py finetune/configs/pretrained-forecaster.yaml

## Limits

- They have seen shops and films. On other logs the gate decides, on the log's own past.
- They need everybody's mix beside a person's: of one person alone little can be told.
- They say which kinds of items people are likely to take next, and nothing about people themselves.
"""
    atomic_write_text(folder / CARD_FILE, text)


def _read_figures(path: Path) -> list[str]:
    """Lines of a table of gains, of a result file; none if it is not there."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    lines = ["| log | people | gain with the gate | 95 % |", "|---|---|---:|---:|"]
    for row in rows:
        if row["metric"] == "gain" and row["split"].endswith("everybody"):
            lines.append(
                f"| {row['dataset']} | {row['n']:,} | {row['value']:+.4f} | {row['low']:+.4f} to "
                f"{row['high']:+.4f} |"
            )
    return lines


def _hash(values: Any) -> str:
    """Give twelve digits that other values would not have."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
