"""What an engine is set to, how that is fitted on a log, and what ships for the embedded logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.contracts import ItemScorer
from llmrec.data.calendar import INSTANT, PeriodLength, as_time
from llmrec.data.periods import events_before, holdout_windows, latest_windows
from llmrec.data.readers import Dataset
from llmrec.errors import DataError
from llmrec.evaluation.backtest import draw
from llmrec.evaluation.tuning import fit_strength
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend, fit_blend
from llmrec.ranking.scorers import ImplicitALS, PersonalRepeat, RecentPopularity

SETTINGS_FILE, CALIBRATION_FILE = "engine.json", "calibration.json"
FITTED_SCORES = 50_000_000  # windows x items: the blend holds the scores of all of them at once


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
        Name of a scorer to its weight; scorers of weight 0 are not built.
    strength
        How hard the forecast tilts the ranking (0: not at all).
    titles
        How far the titles that the model foretells are trusted, see `ForetoldTitles`.
    adapter
        Folder of the adapter inside the model, beside the settings' file; "" if there is none.
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
        plain = replace(self, model=model, titles=0.0, adapter="")
        if not self.adapter:
            return plain
        return replace(plain, template=EngineSettings.template, budget=EngineSettings.budget)

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
    most = min(500, max(50, FITTED_SCORES // catalog.n_items))
    windows = draw(holdout_windows(log, catalog, dataset.period), most)
    if len(windows) < 10:
        events = PeriodLength.parse(dataset.period).unit == "events"
        mix = {"mix": "all" if events else "last period"}
        return EngineSettings(counting=mix, blend={"PersonalRepeat": 1.0}, **about)
    counting = DecayedDirichlet().fit(latest_windows(log, catalog, dataset.period))
    scorers = _scorers(dataset, windows[0].history.cutoff)
    blend = fit_blend(list(scorers.values()), windows, repeat=dataset.repeat)
    strength = fit_strength(counting, blend, windows, repeat=dataset.repeat)
    return EngineSettings(
        counting=counting.to_dict(),
        blend={name: float(weight) for name, weight in zip(scorers, blend.weights, strict=True)},
        strength=strength,
        **about,
    )


def build_blend(dataset: Dataset, cutoff: np.datetime64, weights: Mapping[str, float]) -> Blend:
    """Build the scorers of non-zero weight, fitted on what lies before the cutoff."""
    scorers = _scorers(dataset, cutoff, [name for name, weight in weights.items() if weight > 0])
    return Blend(tuple(scorers.values()), tuple(weights[name] for name in scorers))


def _scorers(
    dataset: Dataset, cutoff: np.datetime64, names: Sequence[str] | None = None
) -> dict[str, ItemScorer]:
    built: dict[str, ItemScorer] = {}
    for name in names or ("RecentPopularity", "PersonalRepeat", "ImplicitALS"):
        if name == "ImplicitALS":
            built[name] = ImplicitALS().fit(dataset.log, dataset.catalog, cutoff)
        elif name == "PersonalRepeat":
            built[name] = PersonalRepeat()
        elif name == "RecentPopularity":
            built[name] = RecentPopularity()
        else:
            raise DataError(f"no scorer is called {name!r}")
    return built
