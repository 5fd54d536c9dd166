"""Numeric forecasters by name, each fitted when first used, all on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from llmrec.data.periods import Window
from llmrec.data.splits import newest_windows, sample_windows
from llmrec.errors import DataError
from llmrec.forecast import Forecaster
from llmrec.forecasters.collaborative import CategoryEASE, CategoryMarkov
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay
from llmrec.forecasters.drift import GlobalDrift, SameSeason
from llmrec.forecasters.loading import load_forecaster as load_forecaster
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.neighbours import NeighbouringUsers
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.forecasters.ridge import MAX_CATEGORIES, RidgeAutoregression

NEURAL_FORECASTERS = ("CellMLP", "GRU", "Transformer", "VAE", "RRN")
NEXT_ITEM_MODELS = ("SASRec", "BERT4Rec", "GRU4Rec", "eSASRec")
MIXTURE_EXPERTS = (
    "CellMLP",
    "CategoryEASE",
    "GlobalDrift",
    "NeighbouringUsers",
    "RidgeAutoregression",
)
MAX_GATE_WINDOWS = 500  # of the period before validation
SEED_DEPENDENT = (*NEURAL_FORECASTERS, *NEXT_ITEM_MODELS, "GatedMixture")

Builder = Callable[["ForecasterRegistry"], Forecaster]


def mixture_experts(n_categories: int) -> tuple[str, ...]:
    """Give the experts of a mixture that suit a catalog: with many categories no ridge."""
    too_many = ("RidgeAutoregression",) if n_categories > MAX_CATEGORIES else ()
    return tuple(name for name in MIXTURE_EXPERTS if name not in too_many)


class ForecasterRegistry:
    """Fits forecasters on training and validation windows when they are first used.

    Only those in `SEED_DEPENDENT` depend on the seed, and with ``tune`` `PretrainedForecaster`: its
    nets are then trained further on training windows, where torch is installed.
    """

    def __init__(
        self,
        training: Sequence[Window],
        validation: Sequence[Window],
        seed: int = 0,
        *,
        tune: bool = False,
    ) -> None:
        if not training or not validation:
            raise DataError(
                f"{len(training)} training and {len(validation)} validation windows: both are "
                "needed. Choose shorter periods, or fit DecayedDirichlet on its own."
            )
        self.training, self.validation = training, validation
        self.seed, self.tune = seed, tune and find_spec("torch") is not None
        self._fitted: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Forecaster:
        """Give a forecaster by name, fitted; DataError if there is none of that name."""
        if name not in BUILDERS:
            raise DataError(f"no forecaster is called {name!r}; choose from {', '.join(BUILDERS)}")
        if name not in self._fitted:
            self._fitted[name] = BUILDERS[name](self)
        fitted: Forecaster = self._fitted[name]
        return fitted

    def with_seed(self, seed: int) -> ForecasterRegistry:
        """Give a registry of another seed that shares the forecasters which no seed changes."""
        other = ForecasterRegistry(self.training, self.validation, seed, tune=self.tune)
        changing = {*SEED_DEPENDENT, *(["PretrainedForecaster"] if self.tune else [])}
        other._fitted = {name: f for name, f in self._fitted.items() if name not in changing}
        return other


def _build_counting(name: str, *decays: float) -> Builder:
    options = {"decays": decays} if decays else {}
    return lambda registry: DecayedDirichlet(name=name).fit(registry.validation, **options)


def _build_on_counting(model: Any) -> Builder:
    """Build a model that adjusts the weights of counting."""

    def build(registry: ForecasterRegistry) -> Forecaster:
        prior = registry["DecayedDirichlet"]
        fitted: Forecaster = model(prior=prior).fit(registry.validation)
        return fitted

    return build


def _build_pretrained(registry: ForecasterRegistry) -> Forecaster:
    """Fit on part of the newest training period, too: the gate is the least of both periods'."""
    prior: Any = registry["DecayedDirichlet"]
    newest, older = list[Window](), list[Window]()
    if registry.training is not registry.validation:
        newest = newest_windows(registry.training)
        own = set(map(id, newest))
        older = [window for window in registry.training if id(window) not in own]
    windows = [*sample_windows(newest, MAX_GATE_WINDOWS), *registry.validation]
    tune = older if registry.tune else []
    return PretrainedForecaster(prior).fit(windows, tune=tune, seed=registry.seed)


def _build_on_drift(model: Any) -> Builder:
    """Build a model that is mixed into counting with drift."""

    def build(registry: ForecasterRegistry) -> Forecaster:
        prior = registry["GlobalDrift"]
        fitted: Forecaster = model(prior=prior).fit(registry.training, registry.validation)
        return fitted

    return build


def _neural(name: str) -> Builder:
    def build(registry: ForecasterRegistry) -> Forecaster:
        # Without torch the first of the two says what to install.
        from llmrec.forecasters.network import NetworkForecaster  # isort: skip
        from llmrec.forecasters import neural

        prior: Any = registry["DecayedDirichlet"]
        forecaster = NetworkForecaster(getattr(neural, name), prior)
        return forecaster.fit(registry.training, registry.validation, seed=registry.seed)

    return build


def _build_next_item(name: Any) -> Builder:
    def build(registry: ForecasterRegistry) -> Forecaster:
        from llmrec.forecasters.sequential import NextItemModel

        prior: Any = registry["GlobalDrift"]
        forecaster = NextItemModel(name, prior)
        return forecaster.fit(registry.training, registry.validation, seed=registry.seed)

    return build


def _build_mixture(registry: ForecasterRegistry) -> Forecaster:
    n_categories = registry.validation[0].history.catalog.n_categories
    experts = {name: registry[name] for name in mixture_experts(n_categories)}
    return GatedMixture(experts).fit(registry.validation)


BUILDERS: dict[str, Builder] = {
    "LastPeriod": _build_counting("LastPeriod", 0.0),
    "Mean": _build_counting("Mean", 1.0),
    "ExponentialDecay": lambda registry: ExponentialDecay().fit(registry.validation),
    "DecayedDirichlet": _build_counting("DecayedDirichlet"),
    "GlobalDrift": _build_on_counting(GlobalDrift),
    "SameSeason": _build_on_counting(SameSeason),
    "PretrainedForecaster": _build_pretrained,
    "CategoryMarkov": _build_on_drift(CategoryMarkov),
    "RidgeAutoregression": _build_on_drift(RidgeAutoregression),
    "NeighbouringUsers": _build_on_drift(NeighbouringUsers),
    "CategoryEASE": _build_on_drift(CategoryEASE),
    **{name: _neural(name) for name in NEURAL_FORECASTERS},
    **{name: _build_next_item(name) for name in NEXT_ITEM_MODELS},
    "GatedMixture": _build_mixture,
}
