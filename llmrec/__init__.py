"""llmrec: what a person will want next, in words and numbers that can be checked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrec.data.catalog import Catalog
    from llmrec.data.dataset import Dataset
    from llmrec.data.interactions import Interactions
    from llmrec.data.readers import load_dataset
    from llmrec.data.windows import make_windows
    from llmrec.engine import InterestEngine
    from llmrec.errors import DataError, EditError, ForecastParseError
    from llmrec.evaluation.evaluator import evaluate
    from llmrec.forecast import Forecast
    from llmrec.forecasters.counting import DecayedDirichlet
    from llmrec.forecasters.llm import LLMForecaster
    from llmrec.language.codec import Codec
    from llmrec.language.model import LanguageModel
    from llmrec.ranking.edit_parser import parse_description_edits, parse_edits
    from llmrec.ranking.edits import Edit
    from llmrec.ranking.rank import rank


__version__ = "0.1.0"

_HOMES = {
    "Catalog": "llmrec.data.catalog",
    "Codec": "llmrec.language.codec",
    "DataError": "llmrec.errors",
    "Dataset": "llmrec.data.dataset",
    "DecayedDirichlet": "llmrec.forecasters.counting",
    "Edit": "llmrec.ranking.edits",
    "EditError": "llmrec.errors",
    "Forecast": "llmrec.forecast",
    "ForecastParseError": "llmrec.errors",
    "InterestEngine": "llmrec.engine",
    "Interactions": "llmrec.data.interactions",
    "LLMForecaster": "llmrec.forecasters.llm",
    "LanguageModel": "llmrec.language.model",
    "evaluate": "llmrec.evaluation.evaluator",
    "load_dataset": "llmrec.data.readers",
    "make_windows": "llmrec.data.windows",
    "parse_description_edits": "llmrec.ranking.edit_parser",
    "parse_edits": "llmrec.ranking.edit_parser",
    "rank": "llmrec.ranking.rank",
}

__all__ = [
    "Catalog",
    "Codec",
    "DataError",
    "Dataset",
    "DecayedDirichlet",
    "Edit",
    "EditError",
    "Forecast",
    "ForecastParseError",
    "Interactions",
    "InterestEngine",
    "LLMForecaster",
    "LanguageModel",
    "evaluate",
    "load_dataset",
    "make_windows",
    "parse_description_edits",
    "parse_edits",
    "rank",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing llmrec stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llmrec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
