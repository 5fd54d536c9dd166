"""The settings that each baseline is tried with on validation, and the first stages of trees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.labels import TWO_STAGE, TWO_STAGE_WITH_NET
from benchmarks.ranking.baselines import (
    Baseline,
    Builder,
    CachedNets,
    PureSvd,
    Settings,
    TifuKnn,
    build_als,
    build_ease,
    build_frequency,
    build_neighbours,
    build_popular,
    build_successors,
    build_with,
    fitted_builder,
    seasonal_builder,
    two_stage_builder,
    unfitted_builder,
)
from benchmarks.ranking.splits import RankingSplit
from llmrec.types import RepeatPolicy


def grid(**choices: Iterable[Any]) -> list[dict[str, Any]]:
    """Give all combinations."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _half_life(decay: float) -> float:
    """Events after which a weight that is multiplied by ``decay`` an event is a half."""
    return float(np.log(0.5) / np.log(decay))


LOG_DAYS = {"per": "days", "counts": "log"}
HALF_LIVES = [_half_life(decay) for decay in (0.8, 0.9, 0.95, 0.99)]
EASE_DAYS = grid(
    regularization=(1000.0, 3000.0), half_life=(84.0, 224.0, np.inf), per=["days"], counts=["log"]
) + grid(regularization=(300.0, 1000.0, 3000.0), half_life=(224.0, np.inf), per=["days"])
SEASONS = grid(days=(14.0, 28.0), power=(0.25, 0.5, 0.75))
COMMON_STAGE = [
    build_with(unfitted_builder(build_popular), days=36_500.0),
    build_with(unfitted_builder(build_popular), days=84.0),
    build_with(unfitted_builder(build_popular), days=28.0),
    build_with(unfitted_builder(build_popular), days=7.0),
    build_with(fitted_builder(build_neighbours), neighbours=50),
    build_with(build_als, factors=64, regularization=10.0, alpha=1.0),
]
MOVIE_STAGE = [
    *COMMON_STAGE,
    build_with(fitted_builder(build_ease), regularization=300.0),
    build_with(fitted_builder(build_ease), regularization=1000.0, half_life=_half_life(0.9)),
    build_with(
        fitted_builder(build_successors), window=10, fade=0.9, power=0.8, half_life=_half_life(0.8)
    ),
    build_with(fitted_builder(PureSvd), factors=30),
]
GROCERY_STAGE = [
    *COMMON_STAGE,
    build_with(unfitted_builder(build_frequency), half_life_days=21.0, strength=30.0),
    build_with(unfitted_builder(build_frequency), half_life_days=84.0, strength=30.0),
    build_with(unfitted_builder(build_frequency), half_life_days=1000.0, strength=30.0),
    build_with(fitted_builder(build_ease), regularization=1000.0),
    build_with(
        seasonal_builder(fitted_builder(build_ease)), regularization=1000.0, days=28.0, power=0.5
    ),
    build_with(fitted_builder(build_ease), regularization=1000.0, half_life=224.0, **LOG_DAYS),
    build_with(
        fitted_builder(build_successors),
        window=30,
        fade=0.97,
        power=0.8,
        half_life=84.0,
        per="days",
    ),
    build_with(fitted_builder(PureSvd), factors=32, counts="log", half_life=112.0),
    build_with(fitted_builder(PureSvd), factors=64),
]
NET: Settings = {"model": "GRU4Rec", "steps": 1800, "rate": 0.02}
NETS: dict[str, Sequence[Settings]] = {
    "SASRec": grid(steps=(900, 1800)),
    "BERT4Rec": grid(steps=(1800, 3600), rate=[0.005]),
    "GRU4Rec": grid(steps=(1800, 3600), rate=[0.02]),
}


def baselines_of(split: RankingSplit, cache: Path) -> list[Baseline]:
    """Give the baselines of a split's log and rule; nets' scores are cached in a folder."""
    nets = CachedNets(cache)
    if split.dataset.name == "ml-100k":
        return movie_baselines(nets)
    return grocery_baselines(split.repeat, nets)


def movie_baselines(nets: Builder) -> list[Baseline]:
    """Give baselines for logs in which nothing is taken twice."""
    days = (7.0, 30.0, 90.0, 36_500.0)
    with_net = two_stage_builder("exclude", *MOVIE_STAGE, build_with(nets, **NET))
    return [
        Baseline("Popular lately", unfitted_builder(build_popular), grid(days=days)),
        Baseline(
            "ItemKNN", fitted_builder(build_neighbours), grid(neighbours=(10, 20, 50, 100, 200))
        ),
        Baseline(
            "EASE",
            fitted_builder(build_ease),
            grid(regularization=(100.0, 200.0, 300.0, 500.0, 1000.0)),
        ),
        Baseline("PureSVD", fitted_builder(PureSvd), grid(factors=(10, 20, 30, 50, 70))),
        Baseline(
            "iALS",
            build_als,
            grid(factors=(32, 64, 128), regularization=(1.0, 10.0, 30.0), alpha=(1.0, 4.0)),
            seeded=True,
        ),
        Baseline(
            "Successors",
            fitted_builder(build_successors),
            grid(
                window=(3, 10, 20),
                fade=(0.7, 0.9, 0.97),
                power=(0.5, 0.8, 1.0),
                half_life=[_half_life(decay) for decay in (0.5, 0.8, 0.9)],
            ),
        ),
        Baseline(
            "EASE on a fading history",
            fitted_builder(build_ease),
            grid(regularization=(100.0, 300.0, 1000.0, 2000.0), half_life=HALF_LIVES),
        ),
        *_net_baselines(nets),
        Baseline(TWO_STAGE, two_stage_builder("exclude", *MOVIE_STAGE), [{}], seeded=True),
        Baseline(TWO_STAGE_WITH_NET, with_net, [{}], seeded=True),
    ]


def grocery_baselines(repeat: RepeatPolicy, nets: Builder) -> list[Baseline]:
    """Give baselines for logs in which people take the same again."""
    frequencies = grid(half_life_days=(56.0, 84.0, 112.0, 168.0), strength=(10.0, 30.0, 100.0))
    ease = grid(regularization=(1000.0,), half_life=(224.0, np.inf), per=["days"])
    ease += [one | {"counts": "log"} for one in ease]
    seasonal_ease = [one | season for one in ease for season in SEASONS]
    seasonal_frequencies = [
        one | season for one in frequencies for season in SEASONS if one["strength"] == 30.0
    ]
    successors = grid(
        window=(10, 30), fade=(0.97,), power=(0.5, 0.8, 1.0), half_life=(28.0, 84.0), per=["days"]
    )
    return [
        Baseline("Popular lately", unfitted_builder(build_popular), grid(days=(7.0, 28.0, 84.0))),
        Baseline("Personal frequency", unfitted_builder(build_frequency), frequencies),
        Baseline(
            "Personal frequency with season",
            seasonal_builder(unfitted_builder(build_frequency)),
            seasonal_frequencies,
        ),
        Baseline(
            "ItemKNN",
            fitted_builder(build_neighbours),
            grid(neighbours=(20, 50, 100), counts=("binary", "log")),
        ),
        Baseline("EASE", fitted_builder(build_ease), EASE_DAYS),
        Baseline("EASE with season", seasonal_builder(fitted_builder(build_ease)), seasonal_ease),
        Baseline(
            "PureSVD",
            fitted_builder(PureSvd),
            grid(factors=(16, 32, 64), counts=["log", "binary"], half_life=(112.0, np.inf)),
        ),
        Baseline(
            "iALS",
            build_als,
            grid(factors=(64,), regularization=(1.0, 10.0), alpha=(1.0, 5.0)),
            seeded=True,
        ),
        Baseline("Successors", fitted_builder(build_successors), successors),
        Baseline(
            "TIFU-KNN",
            fitted_builder(TifuKnn),
            grid(
                within=(0.9, 1.0),
                between=(0.7, 0.9),
                groups=(7, 13),
                neighbours=(100, 300, 900),
                share=(0.3, 0.5, 0.7, 0.9),
            ),
        ),
        *_net_baselines(nets, 1),  # longer ones were hardly better there: LOG.md
        Baseline(TWO_STAGE, two_stage_builder(repeat, *GROCERY_STAGE), [{}], seeded=True),
    ]


def _net_baselines(build: Builder, max_settings: int | None = None) -> list[Baseline]:
    return [
        Baseline(
            name, build, [{"model": name, **one} for one in settings[:max_settings]], seeded=True
        )
        for name, settings in NETS.items()
    ]
