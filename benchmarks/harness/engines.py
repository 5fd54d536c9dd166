"""Engines for benchmarks: made of a log alone, fitted with an effort, and asked for lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from benchmarks.harness.labels import engine_label
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.engine import InterestEngine
from llmrec.engine_folder import is_engine
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.ranking import Ranking, rank

EFFORTS: tuple[Effort, ...] = get_args(Effort)
K = 10


@dataclass(frozen=True)
class EngineFit:
    """How an engine is fitted: effort, seed, members left out, and whether an LLM is added."""

    effort: Effort
    seed: int = 0
    without: tuple[str, ...] = ()
    use_llm: bool = False

    @property
    def label(self) -> str:
        """What rows call it."""
        return engine_label(self.effort, use_llm=self.use_llm, without=self.without)


@dataclass(frozen=True)
class AddedAdapter:
    """An adapter for the engines with an LLM, and the windows that it may have learned from."""

    folder: Path
    leave_out: Callable[[Window], bool]


def make_engine(dataset: Dataset, adapter: AddedAdapter | None = None) -> InterestEngine:
    """Make an engine of a log, fitted here alone: a bundled engine of the same log is not used."""
    make = partial(InterestEngine.from_pretrained, data=dataset, refit=True)
    if adapter is None:
        return make(model=None)
    return make(AdapterMetadata.load(adapter.folder).base_model, adapter=adapter.folder)


def fit_measured(
    engine: InterestEngine,
    fit: EngineFit,
    work_folder: Path | None = None,
    adapter: AddedAdapter | None = None,
) -> float:
    """Fit an engine; give the CPU seconds that it took this process.

    Parameters
    ----------
    work_folder
        Where trained nets are stored and looked up; what is found there costs nothing.

    Raises
    ------
    DataError
        If the log is too small for the effort: the engine would be another one than its row says.
    """
    start = time.process_time()
    engine.fit(
        fit.effort,
        seed=fit.seed,
        without=fit.without,
        use_llm=fit.use_llm,
        leave_out=None if adapter is None else adapter.leave_out,
        work_folder=work_folder,
        show=lambda line: print(f"{fit.label}: {line}", flush=True),
    )
    seconds = time.process_time() - start
    if engine.settings.effort != fit.effort:
        raise DataError(
            f"{engine.dataset.name} got effort {engine.settings.effort!r} instead of "
            f"{fit.effort!r}: {engine.settings.report['reason']}"
        )
    return seconds


def load_or_fit(dataset: Dataset, fit: EngineFit, folder: Path) -> InterestEngine:
    """Load an engine from where it is cached, or fit it on a log alone and save it there."""
    if not is_engine(str(folder)):
        engine = make_engine(dataset)
        fit_measured(engine, fit)
        engine.save_pretrained(folder, with_catalog=False)
    return InterestEngine.from_pretrained(str(folder), data=dataset, model=None)


def engine_rankings(
    engine: InterestEngine, histories: Sequence[History], k: int = K
) -> list[Ranking]:
    """Rank for histories, all in one batch, as `InterestEngine.session` does for each.

    Raises
    ------
    DataError
        If the engine's log has other events of somebody than the history.
    """
    require_same_events(engine.dataset, histories)
    return rank(
        engine.forecaster.forecast(histories),
        histories,
        engine.blend,
        k=k,
        strength=engine.settings.strength,
        repeat=engine.dataset.repeat,
    )


def engine_lists(
    engine: InterestEngine, histories: Sequence[History], k: int = K
) -> list[list[int]]:
    """(n_histories, k) items of each list, best first."""
    return [ranking.item_idx.tolist() for ranking in engine_rankings(engine, histories, k)]


def kept_members(engine: InterestEngine, part: Literal["forecast", "list"]) -> list[str]:
    """List the members that a fitted engine forecasts or ranks with."""
    members = engine.settings.report[part]["members"]
    return [member["name"] for member in members if member["kept"]]


def require_same_events(dataset: Dataset, histories: Sequence[History]) -> None:
    """Raise DataError if a log holds more or fewer events of somebody than their history."""
    for history in histories:
        user = dataset.log.user_index(history.user_id)
        n = int(dataset.log.user_offsets[user + 1] - dataset.log.user_offsets[user])
        if n != history.n_events:
            raise DataError(
                f"the engine's log holds {n} events of user {history.user_id!r}, and the history "
                f"{history.n_events}: give the log from before the test"
            )


def folder_megabytes(folder: Path) -> float:
    """Size of all files in a folder, in millions of bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def saved_megabytes(engine: InterestEngine) -> float:
    """Size of the folder that an engine is saved as, in millions of bytes."""
    with TemporaryDirectory() as folder:
        engine.save_pretrained(folder)
        return folder_megabytes(Path(folder))
