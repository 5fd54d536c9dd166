"""What an engine is set to, how that is fitted on a log, and what ships for the embedded logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from llmrec.contracts import Forecaster, ItemScorer
from llmrec.data.calendar import INSTANT, PeriodLength, as_time
from llmrec.data.periods import Window, events_before, latest_windows, log_before
from llmrec.data.readers import Dataset
from llmrec.errors import DataError
from llmrec.evaluation.backtest import draw
from llmrec.evaluation.tuning import STRENGTHS, fit_strength, sharpened
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Asked, Blend, fit_blend
from llmrec.ranking.named import FORETOLD, fitted_scorer, scorers_for

SETTINGS_FILE, CALIBRATION_FILE = "engine.json", "calibration.json"
STEERABLE = 0.01  # share of the NDCG that a tilt which edits act through may cost
# Scorers x windows x items. While the blend is fitted each is held twice, in float64, and what the
# fit makes of them beside it: 24 bytes each for five scorers (tracemalloc), 3.6 GB in all.
FITTED_SCORES = 150_000_000
LEAST_WINDOWS = 10  # fewer fit nothing
ALONE = {"PersonalRepeat": 1.0}  # the blend where there is nothing to fit one on


@dataclass(frozen=True)
class EngineSettings:
    """What an engine folder says beside its calibration: plain values, kept as JSON.

    Attributes
    ----------
    model, template, budget
        Base model, prompt version, and tokens a prompt may have.
    counting
        Fields of `DecayedDirichlet`.
    blend
        Name of a scorer, see `llmrec.ranking.named`, to its weight; those of 0 are not built.
    strength
        How hard the forecast tilts the ranking (0: not at all).
    titles
        How far the titles that the model foretells are trusted, see `ForetoldTitles`.
    adapter
        Folder of the adapter inside the model, beside the settings' file; "" if there is none.
    precision
        What the model was loaded in when it was calibrated, and is to be loaded in again; "auto"
        where it was not calibrated.
    dataset
        Name of the log, which `load_dataset` takes if it is one of those that it knows.
    period, data, fitted_before
        Length of the periods, fingerprint of the log, and the time at or after which nothing was
        used: what the fit is good for.
    """

    model: str = "smollm2-135m"
    template: str = "forecast-v1"
    budget: int = 300
    counting: Mapping[str, Any] = field(default_factory=dict)
    blend: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    titles: float = 0.0
    adapter: str = ""
    precision: str = "auto"
    dataset: str = ""
    period: str = ""
    data: str = ""
    fitted_before: str = ""

    @classmethod
    def load(cls, path: Path) -> EngineSettings:
        """Read settings; DataError names an unknown field or broken JSON."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is no engine's settings: {error}") from error

    def untuned(self, model: str) -> EngineSettings:
        """Give the same for a base model without an adapter."""
        plain = replace(self.without_titles(), model=model, adapter="", precision="auto")
        if not self.adapter:
            return plain
        return replace(plain, template=EngineSettings.template, budget=EngineSettings.budget)

    def without_titles(self) -> EngineSettings:
        """Give the same for a model that foretells no titles, or is not trusted with them."""
        kept = {name: weight for name, weight in self.blend.items() if name != FORETOLD}
        return replace(self, titles=0.0, blend=kept if any(kept.values()) else ALONE)

    def hold_for(self, dataset: Dataset, cutoff: np.datetime64) -> bool:
        """Whether they were fitted on this very log and period, and on nothing after the cutoff."""
        if not self.fitted_before or as_time(self.fitted_before) > cutoff:
            return False
        if self.period != dataset.period:
            return False
        return events_before(dataset.log, self.fitted_before).fingerprint == self.data


def shipped_folder(dataset: str) -> Path:
    """Where the package keeps the fitted engine of an embedded log; of others it has none."""
    return Path(str(resources.files("llmrec"))) / "engines" / Path(dataset).name


def fit_settings(dataset: Dataset) -> EngineSettings:
    """Fit counting and blend on the last period of a log; one too short gets defaults."""
    log, catalog = dataset.log, dataset.catalog
    about: dict[str, Any] = {
        "dataset": dataset.name,
        "period": dataset.period,
        "data": log.fingerprint,
        "fitted_before": str(log.timestamp.max() + INSTANT),
    }
    latest = latest_windows(log, catalog, dataset.period)
    if len(latest) < LEAST_WINDOWS:
        events = PeriodLength.parse(dataset.period).unit == "events"
        mix = {"mix": "all" if events else "last period"}
        return EngineSettings(counting=mix, blend=ALONE, **about)
    counting = DecayedDirichlet().fit(latest)
    blend, strength = fit_ranking(dataset, draw(latest, 500), counting)
    return EngineSettings(counting=counting.to_dict(), blend=blend, strength=strength, **about)


def fit_ranking(
    dataset: Dataset,
    windows: Sequence[Window],
    forecaster: Forecaster,
    given: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> tuple[dict[str, float], float]:
    """Fit the weights of a blend, and how hard a forecast tilts it, on validation windows.

    The scorers that suit the log are fitted on what lies before the windows' targets
    (`log_before`). Weights make the targets likely, and then move while lists get better.

    Parameters
    ----------
    windows
        So many of them, drawn, that there are no more than `FITTED_SCORES` scores (37 with four
        scorers and a million items), and no fewer than `LEAST_WINDOWS`: from 3,750,000 items on,
        memory grows by 960 bytes an item.
    given
        More scorers, by name. They must not have learned from the windows' targets.

    Returns
    -------
    blend, strength
        As `EngineSettings` keeps them. Edits act through the strength, so it is never 0: it is the
        largest that costs no more than a hundredth of the NDCG@10, or .05 if even that costs more.
    """
    catalog, repeat = dataset.catalog, dataset.repeat
    names = scorers_for(dataset.period, catalog.n_items, repeat)
    each = (len(names) + len(given)) * catalog.n_items
    windows = draw(windows, max(LEAST_WINDOWS, FITTED_SCORES // each))
    before, histories = log_before(windows), [window.history for window in windows]
    scorers = {name: fitted_scorer(name, before, catalog) for name in names} | dict(given)
    asked = [Asked.of(scorer, histories) for scorer in scorers.values()]
    blend = sharpened(fit_blend(asked, windows, repeat=repeat), windows, repeat=repeat)
    weights = {name: float(weight) for name, weight in zip(scorers, blend.weights, strict=True)}
    strength = fit_strength(forecaster, blend, windows, repeat=repeat, slack=STEERABLE)
    return weights, max(strength, STRENGTHS[1])


def build_blend(
    dataset: Dataset,
    cutoff: np.datetime64,
    weights: Mapping[str, float],
    given: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> Blend:
    """Build the scorers of non-zero weight, fitted on what lies before the cutoff.

    ``given`` are scorers at hand, by name. DataError if a scorer is unknown and not given.
    """
    kept = {name: weight for name, weight in weights.items() if weight > 0}
    scorers = [
        given[name] if name in given else fitted_scorer(name, dataset.log, dataset.catalog, cutoff)
        for name in kept
    ]
    return Blend(tuple(scorers), tuple(kept.values()))
