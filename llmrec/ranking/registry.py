"""Item scorers by name, as the settings of an engine store them, and the default ones of a log."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from llmrec.data.calendar import PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.stored import Stored
from llmrec.errors import DataError, MissingExtraError, ModelLoadError
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend, scorer_name
from llmrec.ranking.factors import ImplicitALS, PureSVD
from llmrec.ranking.feature_scorers import (
    KEPT_WEIGHTS,
    MAX_EASE_ITEMS,
    SIMILARITY_FLOOR,
    VECTOR_SCORERS,
    feature_scorers,
    possible_vector_scorers,
)
from llmrec.ranking.fitted import FittableScorer, StorableScorer, refusing
from llmrec.ranking.gbdt import GBDTReranker
from llmrec.ranking.item_item import Cosine, Ease, ItemToItem, SequentialRules
from llmrec.ranking.next_items import NextItems
from llmrec.ranking.scorers import (
    ALL_TIME_DAYS,
    PersonalRepeat,
    PopularityTrend,
    RecentPopularity,
)
from llmrec.ranking.seasonal import Seasonal
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from llmrec.types import RepeatPolicy

LM_SCORER = "LMItemScorer"  # the one that needs a language model: see `llmrec.ranking.lm_scorer`
MIN_TITLES = 20  # different ones: fewer tell nothing
# Names are stored in files: their meaning must not change. All but Cosine were chosen on
# validation, Successors on periods of events (LOG.md). Cosine, and Successors on calendar periods,
# replace EASE where a catalog is too large for it: on no such log have they been validated.
SCORERS: Mapping[str, Callable[[], ItemScorer]] = {
    "RecentPopularity": RecentPopularity,
    "PersonalRepeat": PersonalRepeat,
    "ImplicitALS": ImplicitALS,
    "Ease": lambda: ItemToItem(Ease(), floor=SIMILARITY_FLOOR),
    "EaseByEvents": lambda: ItemToItem(Ease(1000.0), 6.6, floor=SIMILARITY_FLOOR),
    "EaseByDays": lambda: ItemToItem(Ease(1000.0, "log"), 224.0, "days", "log", SIMILARITY_FLOOR),
    "Cosine": lambda: ItemToItem(Cosine(), floor=SIMILARITY_FLOOR),
    "Successors": lambda: ItemToItem(
        SequentialRules(), 3.1, counts="count", floor=SIMILARITY_FLOOR
    ),
    "PopularityOfWeek": lambda: RecentPopularity(7.0),
    "PopularityTrend": PopularityTrend,
    "PopularityOfQuarter": lambda: RecentPopularity(84.0),
    "PopularityOfAllTime": lambda: RecentPopularity(ALL_TIME_DAYS),
    "PersonalRepeatOfWeeks": lambda: PersonalRepeat(21.0),
    "PersonalRepeatOfYears": lambda: PersonalRepeat(1000.0),
    "EaseStrong": lambda: ItemToItem(Ease(1000.0, keep=KEPT_WEIGHTS), floor=SIMILARITY_FLOOR),
    "EaseSeasonal": lambda: Seasonal(
        ItemToItem(Ease(1000.0, keep=KEPT_WEIGHTS), floor=SIMILARITY_FLOOR)
    ),
    "SuccessorsByDays": lambda: ItemToItem(
        SequentialRules(30, 0.97), 84.0, "days", "count", SIMILARITY_FLOOR
    ),
    "SparseEase": lambda: ItemToItem(Ease(keep=KEPT_WEIGHTS), floor=SIMILARITY_FLOOR),
    "SparseEaseByEvents": lambda: ItemToItem(
        Ease(1000.0, keep=KEPT_WEIGHTS), 6.6, floor=SIMILARITY_FLOOR
    ),
    "SparseEaseByDays": lambda: ItemToItem(
        Ease(1000.0, "log", keep=KEPT_WEIGHTS), 224.0, "days", "log", SIMILARITY_FLOOR
    ),
    "NextItems": lambda: ItemToItem(NextItems(keep=KEPT_WEIGHTS), 8.0, floor=SIMILARITY_FLOOR),
    "PureSVD": lambda: PureSVD(30, floor=SIMILARITY_FLOOR),
    "PureSVDOf64": lambda: PureSVD(64, floor=SIMILARITY_FLOOR),
    "PureSVDByDays": lambda: PureSVD(32, "log", 112.0, SIMILARITY_FLOOR),
    **{name: partial(make, None) for name, make in VECTOR_SCORERS.items()},
}
# What stored scorers are made again by; those of nets load torch.
_LOADERS: Mapping[str, Callable[[Stored, Catalog], ItemScorer]] = {
    "RecentPopularity": RecentPopularity.from_stored,
    "PersonalRepeat": PersonalRepeat.from_stored,
    "PopularityTrend": PopularityTrend.from_stored,
    "ItemToItem": ItemToItem.from_stored,
    "ImplicitALS": ImplicitALS.from_stored,
    "PureSVD": PureSVD.from_stored,
    "TitleKernel": TitleKernel.from_stored,
    "TextPopularity": TextPopularity.from_stored,
    "FactorsFromText": FactorsFromText.from_stored,
}
_NETS = {"NextItemScorer": "llmrec.forecasters.sequential"}
POPULARITY_BLEND = {"RecentPopularity": 1.0}  # where no scorer has a weight


def build_scorer(
    name: str, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
) -> ItemScorer:
    """Build the scorer of a name, fitted on a log's events before the cutoff (default: all).

    Raises
    ------
    DataError
        If no scorer has the name; the message lists the names.
    """
    known = {**SCORERS, **feature_scorers(catalog)}
    if name not in known:
        raise DataError(
            f"no scorer is called {name!r}: choose from {', '.join(known)}, and {LM_SCORER} with "
            "a model that has title embeddings"
        )
    scorer = known[name]()
    return scorer.fit(log, catalog, cutoff) if isinstance(scorer, FittableScorer) else scorer


def default_scorers(period: str, n_items: int, repeat: RepeatPolicy) -> tuple[str, ...]:
    """Give the names of the scorers to blend for a log.

    What everybody took lately; `PersonalRepeat` where items may be listed again; item similarities
    by EASE up to `MAX_EASE_ITEMS`, by counts beyond; a trend on calendar periods; sequential rules,
    and a linear map to the next items, where periods are counted in events.
    """
    by_events = PeriodLength.parse(period).unit == "events"
    is_small = n_items <= MAX_EASE_ITEMS
    names = ["RecentPopularity"] + ([] if by_events else ["PopularityTrend"])
    if repeat == "allow":
        names.append("PersonalRepeat")
    if is_small:
        names += ["SparseEase", "SparseEaseByEvents", "NextItems"] if by_events else []
        names += [] if by_events else ["SparseEaseByDays"]
    else:
        names.append("Cosine")
    if by_events or not is_small:
        names.append("Successors")
    return tuple(names)


def text_scorers(catalog: Catalog) -> tuple[str, ...]:
    """Give the names of the scorers that know a catalog's items by titles, or by features.

    Of titles none where fewer than `MIN_TITLES` differ; see `possible_vector_scorers`.
    """
    tells = len(set(catalog.titles)) >= MIN_TITLES
    return (*(possible_vector_scorers(catalog) if tells else ()), *feature_scorers(catalog))


def first_stage_scorers(period: str, n_items: int, repeat: RepeatPolicy) -> tuple[str, ...]:
    """Give the names of the scorers whose scores trees learn from, for a log.

    More of them than `default_scorers`, and of other parameters: trees find out which help.
    `ImplicitALS` only where the package that fits it is installed; EASE up to `MAX_EASE_ITEMS`.
    """
    by_events = PeriodLength.parse(period).unit == "events"
    names = ["PopularityOfAllTime", "PopularityOfQuarter", "RecentPopularity", "PopularityOfWeek"]
    if repeat == "allow":
        names += ["PersonalRepeatOfWeeks", "PersonalRepeat", "PersonalRepeatOfYears"]
    names.append("Cosine")
    if importlib.util.find_spec("implicit") is not None:
        names.append("ImplicitALS")
    if n_items <= MAX_EASE_ITEMS:
        names += ["SparseEase", "SparseEaseByEvents", "NextItems"] if by_events else []
        names += [] if by_events else ["EaseStrong", "EaseSeasonal", "SparseEaseByDays"]
    if by_events:
        return (*names, "Successors", "PureSVD")
    return (*names, "SuccessorsByDays", "PureSVDByDays", "PureSVDOf64", "PopularityTrend")


def load_scorer(stored: Stored, catalog: Catalog) -> ItemScorer:
    """Make a fitted scorer again for the catalog of its fit; it gives the same scores to the bit.

    Raises
    ------
    ModelLoadError
        If no scorer is of that kind, or what is stored is not of this catalog.
    """
    if stored.kind == "Seasonal":
        return Seasonal.from_stored(stored, catalog, load_scorer)
    if stored.kind in _NETS:
        module = importlib.import_module(_NETS[stored.kind])
        found: ItemScorer = getattr(module, stored.kind).from_stored(stored, catalog)
        return found
    if stored.kind not in _LOADERS:
        known = ", ".join((*_LOADERS, "Seasonal", *_NETS))
        raise ModelLoadError(f"no scorer is stored as {stored.kind!r}: known are {known}")
    return _LOADERS[stored.kind](stored, catalog)


def is_net(scorer: ItemScorer) -> bool:
    """Whether a scorer is a trained net: fitting it again is a training, not a statistic."""
    return type(scorer).__name__ in _NETS


def refit_statistics(
    scorer: ItemScorer, log: Interactions, catalog: Catalog, cutoff: np.datetime64
) -> ItemScorer:
    """Give a scorer of the same parameters fitted on a log's events before a cutoff.

    Nets and scorers that need no fit are as they were, and so are those whose package is missing.
    The scorer itself does not change.
    """
    if isinstance(scorer, Seasonal):
        return replace(scorer, scorer=refit_statistics(scorer.scorer, log, catalog, cutoff))
    if type(scorer).__name__ not in _LOADERS or not isinstance(scorer, FittableScorer):
        return scorer
    unfitted: Any = scorer
    bare = replace(unfitted)
    if isinstance(bare, FactorsFromText):
        bare.als = replace(bare.als)
    try:
        fitted: ItemScorer = bare.fit(log, catalog, cutoff)
    except MissingExtraError:
        return scorer
    return fitted


def stored_blend(blend: Blend, titles_weight: float = 0.0) -> Stored:
    """Give a blend with all of its scorers and its trees, to be stored.

    Of an `LMItemScorer` only the place is stored: its model lies elsewhere. ``titles_weight`` is of
    one that the blend was loaded without, and is stored again.

    Raises
    ------
    DataError
        If a scorer cannot be stored, or is not fitted.
    """
    parts, kinds = {}, []
    for place, scorer in enumerate(blend.scorers):
        kinds.append(type(scorer).__name__)
        if isinstance(scorer, StorableScorer):
            try:
                parts[f"scorer{place:02}"] = scorer.stored()
            except ValueError as error:
                raise DataError(f"the blend cannot be stored: {error}") from error
        elif kinds[-1] != LM_SCORER:
            raise DataError(
                f"the blend holds {scorer_name(scorer)!r}, which cannot be stored: take it out of "
                "engine.blend before saving."
            )
    if isinstance(blend.trees, GBDTReranker):
        parts["trees"] = blend.trees.stored()
    elif blend.trees is not None:
        raise DataError(f"{blend.trees.name!r} cannot be stored: only a GBDTReranker can")
    weights = list(blend.weights)
    if titles_weight and LM_SCORER not in kinds:
        kinds, weights = [*kinds, LM_SCORER], [*weights, titles_weight]
    values = {"scorers": kinds, "weights": weights, "trees_weight": blend.trees_weight}
    return Stored("Blend", values, parts=parts)


def stored_titles_weight(stored: Stored) -> float:
    """Give the weight that a stored blend has for an `LMItemScorer`; 0 if it has none."""
    with refusing(stored.kind):
        pairs = zip(stored.values["scorers"], stored.values["weights"], strict=True)
        return float(sum(weight for kind, weight in pairs if kind == LM_SCORER))


def load_blend(
    stored: Stored,
    catalog: Catalog,
    extra_scorers: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> Blend:
    """Make a blend again, with scorers and trees.

    Parameters
    ----------
    extra_scorers
        By kind, those that are not stored: the `LMItemScorer`. Without it the others rank alone.

    Raises
    ------
    ModelLoadError
        If a scorer is missing, or anything is not of this catalog.
    """
    with refusing(stored.kind):
        scorers, weights = list[ItemScorer](), list[float]()
        pairs = zip(stored.values["scorers"], stored.values["weights"], strict=True)
        for place, (kind, weight) in enumerate(pairs):
            part = stored.parts.get(f"scorer{place:02}")
            if part is None and kind == LM_SCORER and kind not in extra_scorers:
                continue
            scorers.append(extra_scorers[kind] if part is None else load_scorer(part, catalog))
            weights.append(weight)
        trees = stored.parts.get("trees")
        return Blend(
            tuple(scorers),
            tuple(weights),
            None if trees is None else GBDTReranker.from_stored(trees),
            stored.values["trees_weight"],
        )
