"""Every numeric forecaster by its name, fitted on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from llmrec.data.periods import Window
from llmrec.errors import DataError
from llmrec.forecast import Forecaster
from llmrec.forecasters.collaborative import CategoryEASE, CategoryMarkov, NeighbouringUsers
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay
from llmrec.forecasters.drift import GlobalDrift, SameSeason
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.ridge import RidgeAutoregression

NEURAL_FORECASTERS = ("CellMLP", "GRU", "Transformer", "VAE", "RRN")
NEXT_ITEM_MODELS = ("SASRec", "BERT4Rec")
MIXTURE_EXPERTS = (
    "CellMLP",
    "CategoryEASE",
    "GlobalDrift",
    "NeighbouringUsers",
    "RidgeAutoregression",
)
SEED_DEPENDENT = (*NEURAL_FORECASTERS, *NEXT_ITEM_MODELS, "GatedMixture")


class ForecasterRegistry:
    """Fits forecasters on training and validation windows when they are asked for, each once.

    Those in `SEED_DEPENDENT` depend on the seed; nobody else does.
    """

    def __init__(
        self, training: Sequence[Window], validation: Sequence[Window], seed: int = 0
    ) -> None:
        if not training or not validation:
            raise DataError(
                f"{len(training)} training and {len(validation)} validation windows: both are "
                "needed. Choose shorter periods, or fit DecayedDirichlet on its own."
            )
        self.training, self.validation, self.seed = training, validation, seed
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
        """Give a family of another seed that shares what no seed changes."""
        other = ForecasterRegistry(self.training, self.validation, seed)
        other._fitted = {name: f for name, f in self._fitted.items() if name not in SEED_DEPENDENT}
        return other


def _counting(name: str, *decays: float) -> Callable[[ForecasterRegistry], Forecaster]:
    chosen = {"decays": decays} if decays else {}
    return lambda family: DecayedDirichlet(name=name).fit(family.validation, **chosen)


def _on_counting(kind: Any) -> Callable[[ForecasterRegistry], Forecaster]:
    """Build a model that moves what counting says."""

    def build(family: ForecasterRegistry) -> Forecaster:
        fitted: Forecaster = kind(prior=family["DecayedDirichlet"]).fit(family.validation)
        return fitted

    return build


def _on_drift(kind: Any) -> Callable[[ForecasterRegistry], Forecaster]:
    """Build a model that is mixed into the counting with drift."""

    def build(family: ForecasterRegistry) -> Forecaster:
        fitted: Forecaster = kind(prior=family["GlobalDrift"]).fit(
            family.training, family.validation
        )
        return fitted

    return build


def _net(name: str) -> Callable[[ForecasterRegistry], Forecaster]:
    def build(family: ForecasterRegistry) -> Forecaster:
        from llmrec.forecasters.network import NetworkForecaster

        network = getattr(import_module("llmrec.forecasters.neural"), name)
        prior: Any = family["DecayedDirichlet"]
        forecaster = NetworkForecaster(network, prior)
        return forecaster.fit(family.training, family.validation, seed=family.seed)

    return build


def _next_item(name: Any) -> Callable[[ForecasterRegistry], Forecaster]:
    def build(family: ForecasterRegistry) -> Forecaster:
        from llmrec.forecasters.sequential import NextItemModel

        prior: Any = family["GlobalDrift"]
        forecaster = NextItemModel(name, prior)
        return forecaster.fit(family.training, family.validation, seed=family.seed)

    return build


def _mixture(family: ForecasterRegistry) -> Forecaster:
    return GatedMixture({name: family[name] for name in MIXTURE_EXPERTS}).fit(family.validation)


BUILDERS: dict[str, Callable[[ForecasterRegistry], Forecaster]] = {
    "LastPeriod": _counting("LastPeriod", 0.0),
    "Mean": _counting("Mean", 1.0),
    "ExponentialDecay": lambda family: ExponentialDecay().fit(family.validation),
    "DecayedDirichlet": _counting("DecayedDirichlet"),
    "GlobalDrift": _on_counting(GlobalDrift),
    "SameSeason": _on_counting(SameSeason),
    "CategoryMarkov": _on_drift(CategoryMarkov),
    "RidgeAutoregression": _on_drift(RidgeAutoregression),
    "NeighbouringUsers": _on_drift(NeighbouringUsers),
    "CategoryEASE": _on_drift(CategoryEASE),
    **{name: _net(name) for name in NEURAL_FORECASTERS},
    **{name: _next_item(name) for name in NEXT_ITEM_MODELS},
    "GatedMixture": _mixture,
}
