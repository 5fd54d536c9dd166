"""What this package writes, each in two versions: the one on the disk, and the one after it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from llmrec.batch.events import ParquetEvents
from llmrec.batch.shards import cut_into_shards, load_partition
from llmrec.data.dataset import Dataset
from llmrec.data.periods import make_histories
from llmrec.data.readers import read_table
from llmrec.data.splits import rolling_training_windows, split_windows
from llmrec.engine import InterestEngine
from llmrec.evaluation import html_report
from llmrec.evaluation.forecast_store import load_forecasts, save_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.training.checkpoints import latest_checkpoint, save_checkpoint
from llmrec.training.dataset import load_examples, save_examples
from tests.batch.conftest import labelled, make_events
from tests.training.tiny_timelines import PRIOR, make_codec, make_dataset


@dataclass(frozen=True)
class Artefact:
    """Something that is written to a folder and read again.

    Attributes
    ----------
    save
        Writes version 0 or 1 into a folder.
    read
        Reads all of it, and says which version it is; None: there is none.
    """

    save: Callable[[Path, int], object]
    read: Callable[[Path], int | None]


@cache
def shop() -> Dataset:
    """Forty people with a taste each."""
    return read_table(labelled(make_events()), name="small", period="14D")


@cache
def engine(version: int) -> InterestEngine:
    """Two fits of another seed."""
    made = InterestEngine.from_pretrained(data=shop(), model=None, refit=True)
    return made.fit("quick", seed=version)


def save_engine_of(folder: Path, version: int) -> None:
    engine(version).save_pretrained(folder)


def read_engine(folder: Path) -> int:
    return InterestEngine.from_pretrained(str(folder), model=None).settings.seed


def save_checkpoint_of(folder: Path, version: int) -> None:
    tensors = {"parameters": {"weight": torch.full((400, 50), float(version))}}
    save_checkpoint(folder, 10 + version, tensors, {"version": version})


def read_checkpoint(folder: Path) -> int:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    (version,) = set(checkpoint.load_tensors("parameters")["weight"].flatten().tolist())
    assert checkpoint.load_values() == {"version": version}
    return int(version)


def save_forecasts_of(folder: Path, version: int) -> None:
    data = shop()
    cutoff = data.log.timestamp.max() - np.timedelta64(14 * (1 - version), "D")
    histories = make_histories(data.log, data.catalog, "14D", cutoff)
    made = np.datetime64("2020-03-01", "ms") + np.timedelta64(version, "D")
    save_forecasts(folder, data, histories, DecayedDirichlet().forecast(histories), made)


def read_forecasts(folder: Path) -> int:
    cutoffs = {one.cutoff for one in load_forecasts(folder)}
    assert len(load_forecasts(folder)) == len(cutoffs) * shop().log.n_users
    return len(cutoffs) - 1


@cache
def timelines() -> Dataset:
    return make_dataset("7D")


def save_examples_of(folder: Path, version: int) -> None:
    data = timelines()
    people, validation = rolling_training_windows(data), split_windows(data)["validation"]
    save_examples(folder, data, make_codec(data), PRIOR, people, validation, seed=version)


def read_examples(folder: Path) -> int:
    manifest, parts = load_examples(folder)
    assert len(parts["train"]) == manifest.n_timelines
    assert sum(map(len, parts["train"]["back"])) == manifest.n_slots
    return manifest.seed


def save_shards(folder: Path, version: int) -> None:
    if version == 0:  # a batch cuts its events once: there is nothing before
        make_events().to_parquet(folder.parent / "events.parquet")
        return
    source = ParquetEvents((folder.parent / "events.parquet",))
    cut_into_shards(source, shop().catalog, folder, 300)


def read_shards(folder: Path) -> int:
    if not folder.exists():
        return 0
    assert load_partition(folder).n_events == len(make_events())
    return 1


def save_report_of(folder: Path, version: int) -> None:
    frame = pd.DataFrame({"version": [version]})
    with pytest.MonkeyPatch.context() as patch:  # figures take seconds, and write nothing
        patch.setattr(html_report, "render_report", lambda *_: f"version {version}")
        html_report.save_report(_Compared(frame, frame), folder)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Compared:
    """What is written of a comparison."""

    scores: pd.DataFrame
    table: pd.DataFrame


def read_report(folder: Path) -> int:
    page = (folder / "report.html").read_text()
    for name in ("scores", "table"):
        (version,) = pd.read_parquet(folder / f"{name}.parquet")["version"]
        assert page == f"version {version}"
    return int(version)


ARTEFACTS = {
    "engine": Artefact(
        lambda folder, version: engine(version).save_pretrained(folder), read_engine
    ),
    "checkpoint": Artefact(save_checkpoint_of, read_checkpoint),
    "forecasts": Artefact(save_forecasts_of, read_forecasts),
    "examples": Artefact(save_examples_of, read_examples),
    "shards": Artefact(save_shards, read_shards),
    "report": Artefact(save_report_of, read_report),
}


def written_before(kind: str, place: Path) -> Callable[[], None]:
    """Write version 0 of an artefact once; give what puts a copy of it at ``trial``."""
    for name, versions in (("both", (0, 1)), ("before", (0,))):  # what is fitted once is kept
        (place / name).mkdir()
        for version in versions:
            ARTEFACTS[kind].save(place / name / kind, version)

    def restore() -> None:
        shutil.rmtree(place / "trial", ignore_errors=True)
        shutil.copytree(place / "before", place / "trial")

    return restore
