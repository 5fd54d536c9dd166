"""Forecasters of the next period's category weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.forecasters.counting import DecayedDirichlet as DecayedDirichlet
    from llmrec.forecasters.holidays import HolidayForecaster as HolidayForecaster
    from llmrec.forecasters.llm import LLMForecaster as LLMForecaster
    from llmrec.forecasters.llm import TitleForecaster as TitleForecaster
    from llmrec.forecasters.mixture import GatedMixture as GatedMixture
    from llmrec.forecasters.network import NetworkForecaster as NetworkForecaster
    from llmrec.forecasters.registry import ForecasterRegistry as ForecasterRegistry
    from llmrec.forecasters.sequential import NextItemModel as NextItemModel

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.forecasters.counting": ["DecayedDirichlet"],
        "llmrec.forecasters.holidays": ["HolidayForecaster"],
        "llmrec.forecasters.llm": ["LLMForecaster", "TitleForecaster"],
        "llmrec.forecasters.mixture": ["GatedMixture"],
        "llmrec.forecasters.network": ["NetworkForecaster"],
        "llmrec.forecasters.registry": ["ForecasterRegistry"],
        "llmrec.forecasters.sequential": ["NextItemModel"],
    },
)
