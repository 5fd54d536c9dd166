"""llmrec: what a person will want next, in words and numbers that can be checked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llmrec.data.versions import MOVED_MODULES, MOVED_NAMES
from llmrec.data.versions import __version__ as __version__
from llmrec.lazy import MovedModules, lazy_attributes

if TYPE_CHECKING:
    from llmrec.data.catalog import Catalog as Catalog
    from llmrec.data.dataset import Dataset as Dataset
    from llmrec.data.interactions import Interactions as Interactions
    from llmrec.data.readers import load_dataset as load_dataset
    from llmrec.data.readers import read_table as read_table
    from llmrec.engine import InterestEngine as InterestEngine
    from llmrec.errors import DataError as DataError
    from llmrec.errors import EditError as EditError
    from llmrec.errors import LlmrecError as LlmrecError
    from llmrec.evaluation.evaluator import evaluate as evaluate
    from llmrec.explain.explanation import Explanation as Explanation
    from llmrec.forecast import Forecast as Forecast
    from llmrec.forecast import Forecaster as Forecaster
    from llmrec.forecast import ItemScorer as ItemScorer
    from llmrec.forecast import Statement as Statement
    from llmrec.ranking.edit_parser import parse_description_edits as parse_description_edits
    from llmrec.ranking.edit_parser import parse_edits as parse_edits
    from llmrec.ranking.edits import Edit as Edit
    from llmrec.ranking.effects import EditEffect as EditEffect
    from llmrec.session import UserSession as UserSession
    from llmrec.session_inputs import Recommendation as Recommendation

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.data.catalog": ["Catalog"],
        "llmrec.data.dataset": ["Dataset"],
        "llmrec.data.interactions": ["Interactions"],
        "llmrec.data.readers": ["load_dataset", "read_table"],
        "llmrec.engine": ["InterestEngine"],
        "llmrec.errors": ["DataError", "EditError", "LlmrecError"],
        "llmrec.evaluation.evaluator": ["evaluate"],
        "llmrec.explain.explanation": ["Explanation"],
        "llmrec.forecast": ["Forecast", "Forecaster", "ItemScorer", "Statement"],
        "llmrec.ranking.edit_parser": ["parse_description_edits", "parse_edits"],
        "llmrec.ranking.edits": ["Edit"],
        "llmrec.ranking.effects": ["EditEffect"],
        "llmrec.session": ["UserSession"],
        "llmrec.session_inputs": ["Recommendation"],
    },
    moved=MOVED_NAMES,
)
sys.meta_path.append(MovedModules(MOVED_MODULES))
