"""How well engines forecast: fitted before each test period, on the people of all forecasters.

The lists of these engines are of popularity alone: what forecasts does not depend on them.
Beside each engine stand the members of its mixture alone, counting, and `GatedMixture` of five
experts with seed 0, fitted as in `benchmarks.forecasting.quality`. What is fitted is cached under
--cache, so that an interrupted run goes on; remove what another version has cached.

Run: python -m benchmarks.forecasting.engines --data completejourney
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.engines import (
    EFFORTS,
    AddedAdapter,
    EngineFit,
    fit_measured,
    kept_members,
    make_engine,
    require_same_events,
)
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COUNTING, MIXTURE
from benchmarks.harness.logs import evaluation_dataset
from benchmarks.harness.results import mean_row, record_results, value_row
from benchmarks.ranking.splits import history_in
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import History, Window
from llmrec.data.splits import split_windows, training_log_for, training_windows, was_trained_on
from llmrec.errors import DataError
from llmrec.forecast import Forecaster
from llmrec.forecasters.precomputed import predict_weights
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.language.adapters import AdapterMetadata
from llmrec.metrics import log_loss
from llmrec.ranking.registry import first_stage_scorers
from llmrec.ranking.selection import TREES
from llmrec.types import FloatArray

CACHE = Path("benchmark-cache/engines")
Losses = dict[str, FloatArray]  # name to (n_users,) log-loss, nats per event; "" is the whole


@dataclass(frozen=True, eq=False)
class ForecastTest:
    """A test period: the log before it, and the people whose period is forecast.

    The histories of the windows lie in that log, so that nothing later can be looked up.
    """

    name: str
    dataset: Dataset
    windows: Sequence[Window]

    @property
    def histories(self) -> list[History]:
        """Histories of the windows."""
        return [window.history for window in self.windows]

    def losses(self, forecaster: Forecaster) -> FloatArray:
        """(n_windows,) log-loss, nats per event."""
        weights = predict_weights(forecaster, self.histories)
        return log_loss(weights, target_counts(self.windows))


def forecast_tests(dataset: Dataset) -> list[ForecastTest]:
    """Give the tests of a log, each with nothing of its targets in what may be learned from."""
    tests = []
    for name, windows in split_windows(dataset).items():
        if name == "validation":
            continue
        log = training_log_for(windows).align_to(dataset.catalog)
        moved = [Window(history_in(one.history, log), one.target) for one in windows]
        known = replace(dataset, log=log, item_rows=None)
        require_same_events(known, [one.history for one in moved])
        tests.append(ForecastTest(name, known, moved))
    return tests


def members_besides_popularity(dataset: Dataset) -> tuple[str, ...]:
    """Name what ranks in an engine of a log, above effort "quick", beside recent popularity."""
    scorers = {TREES, *first_stage_scorers(dataset.period, 1, dataset.repeat)}
    return tuple(sorted(scorers - {"RecentPopularity"}))


def main() -> None:
    """Fit, forecast, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--efforts", nargs="*", default=EFFORTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cached", action="store_true", help="record what is cached, fit nothing")
    parser.add_argument("--adapter", type=Path, help="for one engine more, of effort best")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = evaluation_dataset(arguments.data)
    cache = arguments.cache / f"{dataset.name}-{dataset.log.fingerprint}"
    without = members_besides_popularity(dataset)
    fits = [EngineFit(effort) for effort in arguments.efforts]
    adapter = None if arguments.adapter is None else adapter_for(dataset, arguments.adapter)
    if adapter is not None:
        fits.append(EngineFit("best", use_llm=True))
    rows: list[Row] = []
    for test in forecast_tests(dataset):
        if arguments.cached and not peers_path(test, cache).exists():
            continue
        peers = peer_losses(dataset, test, cache)
        rows += peer_rows(dataset.name, test.name, peers)
        for fit in fits:
            seeds = [replace(fit, seed=seed) for seed in range(arguments.seeds)]
            own = adapter if fit.use_llm else None
            if arguments.cached:
                seeds = [one for one in seeds if losses_path(test, one, cache).exists()]
            losses = [engine_losses(test, one, cache, own, without) for one in seeds]
            if not losses:
                print(f"{fit.label}, {test.name}: not cached", flush=True)
                continue
            rows += engine_rows(dataset.name, test.name, fit.label, losses, peers)
    record_results(f"forecasting/engines_{dataset.name}", rows)


def adapter_for(dataset: Dataset, folder: Path) -> AddedAdapter:
    """Give an adapter that was fine-tuned on the training windows of a log.

    Raises
    ------
    DataError
        If it may have seen a test.
    """
    metadata, trained = AdapterMetadata.load(folder), was_trained_on(dataset)
    tests = [
        window
        for name, part in split_windows(dataset).items()
        for window in part
        if name != "validation"
    ]
    if metadata.dataset != dataset.name or any(map(trained, tests)):
        raise DataError(f"the adapter in {folder} may have seen tests of {dataset.name}")
    return AddedAdapter(folder, trained)


def peers_path(test: ForecastTest, cache: Path) -> Path:
    """Where the losses of counting and of the mixture are cached."""
    return cache / f"peers, {test.name}.npz"


def peer_losses(dataset: Dataset, test: ForecastTest, cache: Path) -> Losses:
    """Give the losses of counting and of the mixture, fitted before validation and gated on it."""
    path = peers_path(test, cache)
    if not path.exists():
        validation = split_windows(dataset)["validation"]
        registry = ForecasterRegistry(training_windows(dataset), validation)
        _save(path, {name: test.losses(registry[name]) for name in (COUNTING, MIXTURE)})
    return _load(path)


def losses_path(test: ForecastTest, fit: EngineFit, cache: Path) -> Path:
    """Where the losses of a fit are cached."""
    return cache / f"{fit.label}, {test.name}, seed {fit.seed}.npz"


def engine_losses(
    test: ForecastTest,
    fit: EngineFit,
    cache: Path,
    adapter: AddedAdapter | None = None,
    without: Sequence[str] = (),
) -> Losses:
    """Fit an engine, and give its losses ("") and those of each member alone, or look them up.

    ``without`` are members of the list that an effort above "quick" is to do without.
    """
    path = losses_path(test, fit, cache)
    if not path.exists():
        engine = make_engine(test.dataset, adapter)
        plain = [*fit.without, *(() if fit.effort == "quick" else without)]
        fit_measured(engine, replace(fit, without=tuple(plain)), cache / "nets", adapter)
        losses = {"": test.losses(engine.forecaster)}
        members: Mapping[str, Forecaster] | None = getattr(engine.prior, "experts", None)
        if members is None:  # one forecaster alone was kept
            members = dict.fromkeys(kept_members(engine, "forecast"), engine.prior)
        losses |= {name: test.losses(member) for name, member in members.items()}
        _save(path, losses)
    return _load(path)


def peer_rows(dataset: str, test: str, peers: Losses) -> Iterator[Row]:
    """Give the rows of counting and of the mixture."""
    for name, losses in peers.items():
        keys = {"dataset": dataset, "split": test, "model": name, "seeds": [0]}
        yield mean_row(keys, "log_loss", losses)
        if name != COUNTING:
            yield mean_row(keys, "log_loss_gain", peers[COUNTING] - losses)


def engine_rows(
    dataset: str, test: str, label: str, losses: Sequence[Losses], peers: Losses
) -> Iterator[Row]:
    """Give the rows of an engine, from its losses by seed: means over seeds, paired over people.

    Its best member is the one of least loss on the test, which only hindsight knows.
    """
    keys: dict[str, Any] = {"dataset": dataset, "split": test, "seeds": list(range(len(losses)))}
    whole = np.mean([each[""] for each in losses], axis=0)
    own = keys | {"model": label}
    yield mean_row(own, "log_loss", whole)
    yield mean_row(own, "log_loss_gain", peers[COUNTING] - whole)
    yield mean_row(own, f"log_loss_gain on {MIXTURE}", peers[MIXTURE] - whole)
    best = np.mean([_best_member(each) for each in losses], axis=0)
    yield mean_row(own, "log_loss_gain on its best member", best - whole)
    for name in sorted({name for each in losses for name in each if name}):
        having = [seed for seed, each in enumerate(losses) if name in each]
        alone = np.mean([losses[seed][name] for seed in having], axis=0)
        of_member = keys | {"model": f"{label}: {name}", "seeds": having}
        yield mean_row(of_member, "log_loss", alone)
        yield mean_row(of_member, "log_loss_gain", peers[COUNTING] - alone)
        yield value_row(of_member, "seeds that keep it", len(having), len(alone))


def _best_member(losses: Losses) -> FloatArray:
    """(n_users,) losses of the member of least loss; those of the engine where it kept none."""
    members = {name: each for name, each in losses.items() if name}
    return min(members.values() or [losses[""]], key=lambda each: float(np.nanmean(each)))


def _save(path: Path, losses: Losses) -> None:
    content = io.BytesIO()
    names = np.array(list(losses))
    np.savez(content, names=names, losses=np.stack(list(losses.values())))
    atomic_write_bytes(path, content.getvalue())


def _load(path: Path) -> Losses:
    with np.load(path) as stored:
        return dict(zip(stored["names"].tolist(), stored["losses"], strict=True))


if __name__ == "__main__":
    main()
