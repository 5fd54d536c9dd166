"""Lists of ten, by peers and by ours, on the same splits, people, items and rules.

Settings are chosen by NDCG@10 on validation alone; models are then fitted once more on all that
lies before a test, and asked once. Lists are kept under --kept, so that a run that was cut off goes
on.

Run: make bench-ranking, or for one split python -m benchmarks.ranking.compare --split global-time
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ranking import splits as ranking_splits
from benchmarks.ranking.baselines import NETS, TWO_STAGE, WITH_NET, Peer, Said, Settings, peers_of
from benchmarks.ranking.blend import NUMBERS, OURS, TUNED, our_lists
from benchmarks.ranking.splits import K, Lists, Split, best_items
from benchmarks.harness.results import record
from benchmarks.ranking.rectools import RECTOOLS, rectools_peers
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text
from llmrec.data.readers import load_dataset
from llmrec.metrics import (
    bootstrap_interval,
    ndcg_at,
    percentile_interval,
    recall_at,
    resampled_means,
)
from llmrec.types import FloatArray

SEEDS = (0, 1, 2)
Opened = Callable[[Dataset], Split]
SPLITS: dict[str, tuple[str, Opened]] = {
    "next-period": ("ml-100k", ranking_splits.next_period),
    "leave-one-out": ("ml-100k", ranking_splits.leave_one_out),
    "global-time": ("ml-100k", ranking_splits.global_time),
    "repeat-allowed": ("completejourney", lambda data: ranking_splits.next_weeks(data, "allow")),
    "explore-only": ("completejourney", lambda data: ranking_splits.next_weeks(data, "exclude")),
}


@dataclass(frozen=True)
class Entry:
    """What a model did on a split.

    Attributes
    ----------
    settings, validation
        Chosen, and their NDCG@10 there.
    lists
        Test to seed to (n_windows, K) items.
    seconds
        To fit and to score once for the first test.
    """

    settings: Settings
    validation: float
    lists: dict[str, dict[str, Lists]]
    seconds: float


def main() -> None:
    """Run the peers of a split, then ours, and write the table."""
    arguments = _arguments()
    torch.set_num_threads(1)
    name, opened = SPLITS[arguments.split]
    split = opened(load_dataset(name))
    kept = arguments.kept / arguments.split
    nets = arguments.kept / "nets"
    blended = peers_of(split, nets)
    peers = [*blended, *rectools_peers(name, nets, arguments.rectools)]
    chosen = set(arguments.peers.split(",") if arguments.peers else (peer.name for peer in peers))
    if not arguments.rectools.exists():
        print(f"{', '.join(RECTOOLS)}: only as they are kept, for want of {arguments.rectools}")
        chosen -= set(RECTOOLS)
    entries = dict(_entries(split, peers, chosen, kept, arguments.seeds))
    settings = {name: entry.settings for name, entry in entries.items()}
    if arguments.plain:
        blended = [peer for peer in blended if peer.name not in (*NETS, TWO_STAGE, WITH_NET)]
    for variant, lists in our_lists(split, blended, settings, arguments.adapter).items():
        score = _mean_ndcg(split, "validation", lists["validation"])
        tests = {test: {"0": lists[test]} for test in split.tests}
        entries[variant] = Entry({}, score, tests, float("nan"))
    part = "_plain" if arguments.plain else ""
    record(f"ranking_{arguments.split}{part}", list(_rows(split, entries)), settings=settings)


def _entries(
    split: Split, peers: Sequence[Peer], chosen: set[str], kept: Path, seeds: int
) -> Iterator[tuple[str, Entry]]:
    """Give the peers that are kept, and first fit and keep the chosen that are not."""
    for peer in peers:
        path = kept / f"{peer.name}.json"
        if not path.exists() and peer.name in chosen:
            atomic_write_text(path, json.dumps(asdict(_entered(split, peer, seeds))))
        if path.exists():
            entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
            print(f"{peer.name}: {entry.validation:.4f} on validation", flush=True)
            yield peer.name, entry


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--adapter", type=Path, help="fine-tuned on what may be learned from")
    parser.add_argument("--kept", type=Path, default=Path("ranking-peers"))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of what is trained")
    parser.add_argument("--peers", help="fit these only, with commas; others as they are kept")
    parser.add_argument("--plain", action="store_true", help="blend no nets, no trees")
    parser.add_argument(
        "--rectools",
        type=Path,
        default=Path(".venv-rectools/bin/python"),
        help="a Python that has RecTools; without it, its nets are left out",
    )
    return parser.parse_args()


def _entered(split: Split, peer: Peer, seeds: int) -> Entry:
    """Choose settings on validation, then ask for the tests' lists."""
    catalog, best, settings = split.dataset.catalog, -1.0, peer.settings[0]
    for one in peer.settings:
        scorer = peer.build(one, split.validation, catalog, SEEDS[0])
        scores = scorer.scores(split.validation.histories)
        lists = best_items(scores, split.validation, split.repeat)
        if (found := _mean_ndcg(split, "validation", lists)) > best:
            best, settings = found, one
    tests: dict[str, dict[str, Lists]] = {}
    seconds = 0.0
    for test, stage in split.tests.items():
        tests[test] = {}
        for seed in SEEDS[: seeds if peer.seeded else 1]:
            start = time.perf_counter()
            scorer = peer.build(settings, stage, catalog, seed)
            scores = scorer.scores(stage.histories)
            took = scorer.seconds if isinstance(scorer, Said) else time.perf_counter() - start
            seconds = seconds or took
            tests[test][str(seed)] = best_items(scores, stage, split.repeat)
    return Entry(settings, best, tests, seconds)


def _mean_ndcg(split: Split, stage: str, lists: Lists) -> float:
    return float(np.nanmean(_judged(split, stage, lists, ndcg_at)))


def _judged(split: Split, stage: str, lists: Lists, metric: Callable[..., float]) -> FloatArray:
    """(n_windows,) a metric of the lists; NaN for whom nothing is relevant."""
    windows = split.stage(stage).windows
    wanted = [split.relevant(window) for window in windows]
    pairs = zip(lists, wanted, strict=True)
    return np.array([metric(K, np.asarray(found), items) for found, items in pairs])


def _rows(split: Split, entries: Mapping[str, Entry]) -> Iterator[dict[str, Any]]:
    """Give each model's means over seeds, and what ours is to the best peers of that test.

    These are the best of all, of all but trees that read a net, and of one stage.
    """
    for test in split.tests:
        ndcg = {name: _over_seeds(split, test, one, ndcg_at) for name, one in entries.items()}
        for name, entry in entries.items():
            about = _about(split, test, name, sorted(map(int, entry.lists[test])))
            yield from _measured(about, "ndcg@10", ndcg[name])
            yield from _measured(about, "recall@10", _over_seeds(split, test, entry, recall_at))
            covered = np.mean([_items(found) for found in entry.lists[test].values()])
            coverage = float(covered) / split.n_items(test)
            yield about | _value("coverage", coverage, len(ndcg[name]))
            if np.isfinite(entry.seconds):
                yield about | _value("seconds", entry.seconds, len(ndcg[name]))
        peers = [name for name in entries if not name.startswith(OURS)]
        ours = [name for name in entries if name not in peers]
        plain = [name for name in peers if name != WITH_NET]
        first = [name for name in plain if name != TWO_STAGE]
        means = {name: float(np.nanmean(ndcg[name])) for name in peers}
        strongest = (max(group, key=means.__getitem__) for group in (peers, plain, first))
        for best in dict.fromkeys(strongest):
            for name in ours:
                about = _about(split, test, name, [0])
                yield from _compared(about, best, ndcg[name], ndcg[best])
        for name, other in _with_and_without(ours):
            about = _about(split, test, name, [0])
            yield from _measured(about, f"ndcg@10 above {other}", ndcg[name] - ndcg[other])
    for name, entry in entries.items():
        n = len(split.validation.windows)
        yield _about(split, "validation", name, [0]) | _value("ndcg@10", entry.validation, n)


def _with_and_without(ours: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give a tilt to the LLM beside that to counting, and a blend with its titles beside none."""
    for name in ours:
        for other in (name.replace(TUNED, "counting"), name.replace(f"{OURS},", f"{NUMBERS},")):
            if other != name and other in ours:
                yield name, other


def _over_seeds(split: Split, test: str, entry: Entry, metric: Callable[..., float]) -> FloatArray:
    every = [_judged(split, test, lists, metric) for lists in entry.lists[test].values()]
    return np.asarray(np.mean(every, axis=0))


def _compared(
    about: dict[str, Any], best: str, ours: FloatArray, theirs: FloatArray
) -> Iterator[dict[str, Any]]:
    """Paired over the same people: the difference, and the ratio of the means."""
    yield from _measured(about, f"ndcg@10 above {best}", ours - theirs)
    known = ~np.isnan(ours)
    drawn = resampled_means(np.stack((ours, theirs), axis=1)[known])
    low, high = percentile_interval(drawn[:, 0] / drawn[:, 1])
    ratio = float(ours[known].mean() / theirs[known].mean())
    more = {"low": low, "high": high}
    yield about | _value(f"ratio to {best}", ratio, int(known.sum())) | more


def _measured(about: dict[str, Any], metric: str, values: FloatArray) -> Iterator[dict[str, Any]]:
    mean, low, high = bootstrap_interval(values)
    n = int(np.isfinite(values).sum())
    yield about | _value(metric, mean, n) | {"low": low, "high": high}


def _value(metric: str, value: float, n: int) -> dict[str, Any]:
    return {"metric": metric, "value": value, "low": None, "high": None, "n": n}


def _about(split: Split, part: str, model: str, seeds: Sequence[int]) -> dict[str, Any]:
    where = f"{split.name} / {part}"
    return {"dataset": split.dataset.name, "split": where, "model": model, "seeds": list(seeds)}


def _items(lists: Lists) -> int:
    return len({item for row in lists for item in row})


if __name__ == "__main__":
    main()
