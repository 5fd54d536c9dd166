"""The version of this package, and the names of version 0.1 that files and callers still use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__version__ = "0.4.0"
FIRST_VERSION = "0.1.0"  # wrote no version into its files

# Names of scorers in the blend of an engine.json.
SCORERS = {"ForetoldItems": "LMItemScorer"}
# Class names in the source of a stored forecast.
FORECASTERS = {"ForetoldTitles": "TitleForecaster", "SeasonReading": "HolidayForecaster"}
# Fields of a TrainingSpan.
SPAN_KEYS = {"until": "before"}
# Fields of a training config, in YAML, in flags and in the config of an adapter.
CONFIG_KEYS = {
    "pairs": "examples",
    "rate": "learning_rate",
    "readout_rate": "head_learning_rate",
    "readout_rank": "head_rank",
    "renamed": "label_renaming",
    "lines": "generation",
    "select": "keep_checkpoint",
    "minutes": "max_minutes",
}
# Fields of an ItemExplanation in JSON: there they keep their names of 0.1.
EXPLANATION_KEYS = {"worded": "model_text", "refused": "rejection"}
# Tensors of a titles.safetensors, which keep their names of 0.1, and the parameters they are.
TITLE_EMBEDDINGS_KEYS = {
    "into.weight": "input_projection.weight",
    "asked.weight": "query_projection.weight",
    "common": "bias",
}
# Prefixes of parameters in the checkpoint of a training run; the first that fits is replaced.
PARAMETERS = {
    "readout.": "category_head.",
    **{f"memory.{old}": f"title_embeddings.{new}" for old, new in TITLE_EMBEDDINGS_KEYS.items()},
    "memory.": "title_embeddings.",
    "reader.": "timeline_model.",
}
# Flags of the command line.
FLAGS = {"--wish": "--edit", "--receipt": "--store", "--in-model-words": "--model-words"}
# Modules that held what `from llmrec import ...` gave in 0.1.
MOVED_MODULES = {
    "llmrec.contracts": "llmrec.forecast",
    "llmrec.evaluation.scores": "llmrec.evaluation.evaluator",
    "llmrec.ranking.tilt": "llmrec.ranking.ranking",
    "llmrec.ranking.wishes": "llmrec.ranking.edit_parser, with parse_edits for parse_wishes and "
    "parse_description_edits for parse_edited",
    "llmrec.sliders": "llmrec.widgets",
}
# What `from llmrec import ...` gave in 0.1 and no longer does.
MOVED_NAMES = {
    "Codec": "llmrec.language.Codec",
    "DecayedDirichlet": "llmrec.forecasters.DecayedDirichlet",
    "ForecastParseError": "llmrec.errors.ForecastParseError",
    "LLMForecaster": "llmrec.forecasters.LLMForecaster",
    "LanguageModel": "llmrec.language.LanguageModel",
    "make_windows": "llmrec.data.make_windows",
    "parse_edited": "llmrec.parse_description_edits",
    "parse_wishes": "llmrec.parse_edits",
    "rank": "llmrec.ranking.rank",
}


def rename_keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Give the same values under today's names; those that are today's stay."""
    return {names.get(key, key): value for key, value in values.items()}


def rename_parameter(name: str) -> str:
    """Give today's name of a parameter in a checkpoint."""
    old = next((prefix for prefix in PARAMETERS if name.startswith(prefix)), "")
    return PARAMETERS[old] + name.removeprefix(old) if old else name


def rename_model(name: str) -> str:
    """Give the source of a stored forecast with today's names of classes."""
    return re.sub(r"\w+", lambda word: FORECASTERS.get(word[0], word[0]), name)


def unknown_keys(keys: Iterable[str], known: Iterable[str], version: str = FIRST_VERSION) -> str:
    """Say which keys are not known, and which version wrote them; "" if all are."""
    unknown = sorted(set(keys) - set(known))
    if not unknown:
        return ""
    named = ", ".join(map(repr, unknown))
    return f"unknown key {named}, written by llmrec {version} (this is {__version__})"
