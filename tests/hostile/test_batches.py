"""A person gets the same alone and in any batch; killed workers change no byte of a batch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.batch import BatchOptions, run_batch
from llmrec.data.periods import History, make_histories
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.forecasters.registry import NEURAL_FORECASTERS, NEXT_ITEM_MODELS
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.types import FloatArray
from tests.batch import conftest as batch_worlds
from tests.batch.test_job import write_log
from tests.forecasters.test_contract import FORECASTERS
from tests.hostile.conftest import Count
from tests.hostile.stops import count_events, killed
from tests.language.tiny_models import save_llama, save_t5
from tests.real_parts import needs_real_parts
from tests.worlds import CATEGORIES, START, catalog, log

engine_folder, events = batch_worlds.engine_folder, batch_worlds.events
small_cells = batch_worlds.small_cells
LARGEST_BATCH = 300
MAX_SECONDS = 60.0  # for people whom the real model reads twice
# BLAS rounds a row of a matrix product by how many rows there are: the last bit may differ.
BY_PRODUCTS = {"PretrainedForecaster", "RidgeAutoregression", "NeighbouringUsers"}
BY_PRODUCTS |= {"GatedMixture", *NEURAL_FORECASTERS, *NEXT_ITEM_MODELS}
NUMERIC = [name for name in FORECASTERS if not name.startswith(("llm", "Season"))]
Weights = Callable[[Sequence[History]], FloatArray]


def batch(engine: Path, log: Path, out: Path, n_kills: int = 0, workers: int = 1) -> int:
    """Make a batch, or go on with it; kill a worker after each of its first shards."""
    made = 0

    def kill_one(done: int, total: int, people: int) -> None:
        nonlocal made
        if made < n_kills:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            made += 1

    options = BatchOptions(k=4, events_per_shard=150)
    try:
        run_batch(engine, log, out, options, resume=True, show=kill_one, workers=workers)
    except DataError as error:
        if not made or "a worker ended" not in str(error):
            raise
    return made


def files_of(out: Path) -> dict[str, bytes]:
    """Give the tables of a batch."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.parquet")}


@pytest.mark.parametrize(
    ("n_runs", "n_workers"),
    [
        pytest.param(4, 0, id="some"),
        pytest.param(22, 8, id="all", marks=pytest.mark.hostile),
    ],
)
def test_a_batch_whose_workers_are_killed_has_the_same_bytes(
    n_runs: int,
    n_workers: int,
    engine_folder: Path,
    events: pd.DataFrame,
    tmp_path: Path,
    count: Count,
) -> None:
    log, rng, found = write_log(tmp_path / "log", events, 2), np.random.default_rng(0), list[str]()
    work = partial(batch, engine_folder, log)
    n_events = count_events(partial(work, tmp_path / "whole"), tmp_path / "whole")
    expected, n_kills = files_of(tmp_path / "whole"), 0
    assert len(expected) > 4
    while n_kills < n_runs:
        out, moments = tmp_path / f"out{n_kills}", list[int]()
        for _ in range(min(int(rng.integers(1, 4)), n_runs - n_kills)):
            moments.append(int(rng.integers(n_events)))
            n_kills += killed(partial(work, out), out, moments[-1])
        work(out)
        if files_of(out) != expected:
            found.append(f"{out.name} killed at events {moments} of {n_events}")
    while n_kills < n_runs + n_workers:
        out = tmp_path / f"out{n_kills}"
        n_kills += (n_in_this := work(out, n_kills=1, workers=2))
        work(out)
        if not n_in_this or files_of(out) != expected:
            found.append(f"{out.name}: {n_in_this} workers were killed")
    count("kills of a batch", n_kills, len(found))
    assert not found


def test_workers_end_with_the_run_that_started_them(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from llmrec.batch import BatchOptions, run_batch, shards\n"
        "shards.EVENTS_PER_CELL = 150\n"
        "def show(*numbers):\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    options = BatchOptions(k=4, events_per_shard=1)\n"
        "    run_batch(*sys.argv[1:4], options, workers=2, show=show)\n"
    )
    log = write_log(tmp_path / "log", events)
    given = map(str, (script, engine_folder, log, tmp_path / "out"))
    with subprocess.Popen([sys.executable, *given], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = list(map(int, run.stdout.readline().split()))
        run.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(_is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_running, workers))


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def histories_of(n_people: int) -> list[History]:
    """Give people of one log, of whom every fourth has a single event."""
    items = catalog()
    whole = log(n_people, 7).align_to(items)
    first = np.isin(np.arange(len(whole)), whole.user_offsets)
    known = whole.drop_events({"of people with one event": (whole.user_idx % 4 == 3) & ~first})
    return make_histories(known, items, "7D", START + np.timedelta64(42, "D"))


def batches(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Divide n people into batches of random sizes and members, single people among them."""
    order = rng.permutation(n)
    while len(order):
        size = min(int(rng.integers(1, LARGEST_BATCH)) if rng.random() < 0.5 else 1, len(order))
        yield order[:size]
        order = order[size:]


def largest_difference(weights: Weights, people: list[History], n_alone: int, seed: int) -> float:
    """Compare weights of all at once with those of random batches, and of some people alone."""
    rng, largest = np.random.default_rng(seed), 0.0
    together = weights(people)
    for rows in batches(len(people), rng):
        found = weights([people[row] for row in rows])
        largest = max(largest, float(np.abs(found - together[rows]).max()))
    for row in rng.permutation(len(people))[:n_alone]:
        largest = max(largest, float(np.abs(weights([people[row]]) - together[row]).max()))
    return largest


def weights_of(forecaster: Forecaster) -> Weights:
    """Give what forecasts the (n_people, n_categories) weights of people."""

    def weights(people: Sequence[History]) -> FloatArray:
        if isinstance(forecaster, LLMForecaster):
            forecaster.model.prompt_cache.clear()  # each prompt is to be read anew
        return np.stack([one.category_weights for one in forecaster.forecast(people)])

    return weights


@pytest.mark.parametrize(
    ("n", "members"),
    [
        pytest.param(60, ["DecayedDirichlet", "GRU", "SASRec"], id="some"),
        pytest.param(2_000, NUMERIC, id="all", marks=pytest.mark.hostile),
    ],
)
def test_numeric_members_forecast_the_same_alone_and_in_any_batch(
    n: int, members: list[str], count: Count
) -> None:
    people, found = histories_of(n), {}
    for seed, name in enumerate(members):
        weights = weights_of(FORECASTERS[name]())
        difference = largest_difference(weights, people, 20, seed)
        if difference > (1e-12 if name in BY_PRODUCTS else 0.0):
            found[name] = difference
    count("people alone or in batches, numeric members", n * len(members), len(found))
    assert not found


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize(
    ("n", "n_alone"),
    [
        pytest.param(60, 20, id="some"),
        pytest.param(2_000, 2_000, id="all", marks=pytest.mark.hostile),
    ],
)
def test_a_language_model_forecasts_the_same_alone_and_in_any_batch(
    n: int, n_alone: int, family: str, tmp_path: Path, count: Count
) -> None:
    if family == "llama":
        save_llama(tmp_path, max_position_embeddings=1024)
    else:
        save_t5(tmp_path)
    model = LanguageModel.load(str(tmp_path), device="cpu")
    calibration = Calibration(1.0, np.zeros(5), np.zeros(5), n=100, categories=CATEGORIES)
    codec = Codec(CATEGORIES, template="forecast-v3", budget=130, count_tokens=model.count_tokens)
    weights = weights_of(LLMForecaster(model, codec, DecayedDirichlet(), calibration))
    people = histories_of(n)
    assert np.abs(weights(people[:9]) - weights_of(DecayedDirichlet())(people[:9])).max() > 0.01
    difference = largest_difference(weights, people, n_alone, seed=0)
    count(f"people alone or in batches, a small {family}", n, int(difference > 1e-4))
    assert difference <= 1e-4


@pytest.mark.hostile
@needs_real_parts
@pytest.mark.parametrize("data", ["ml-100k", "completejourney"])
def test_a_shipped_engine_forecasts_the_same_alone_and_in_any_batch(
    data: str, count: Count
) -> None:
    engine = InterestEngine.from_pretrained(data=data, describe=False)
    model, people = engine.forecaster.model, engine.histories()
    start, n, largest = time.monotonic(), 0, 0.0
    for rows in batches(len(people), np.random.default_rng(0)):
        together = [people[row] for row in rows[:50]]
        model.prompt_cache.clear()
        found = engine.forecast_many(together)
        for person, forecast in zip(together, found, strict=True):
            model.prompt_cache.clear()
            alone = engine.forecast(person)
            assert alone.source == forecast.source
            change = np.abs(alone.category_weights - forecast.category_weights).max()
            largest, n = max(largest, float(change)), n + 1
        if time.monotonic() - start > MAX_SECONDS:
            break
    count(f"people alone or in batches, engine of {data}", n, int(largest > 1e-4))
    assert largest <= 1e-4
