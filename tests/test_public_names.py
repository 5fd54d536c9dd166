"""What llmrec promises: these names, and no others, until this list is changed on purpose."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import llmrec

PUBLIC = {
    "llmrec": """InterestEngine UserSession Recommendation Explanation Forecast Statement Forecaster
        ItemScorer Edit EditEffect parse_edits parse_description_edits Dataset Catalog Interactions
        load_dataset read_table evaluate LlmrecError DataError EditError""",
    "llmrec.data": """History Window make_histories make_windows split_windows training_windows
        make_synthetic_world""",
    "llmrec.language": "LanguageModel Codec TextEncoder AdapterMetadata",
    "llmrec.forecasters": """DecayedDirichlet GatedMixture NetworkForecaster NextItemModel
        LLMForecaster TitleForecaster HolidayForecaster ForecasterRegistry""",
    "llmrec.explain": "check_explanation save_html",
    "llmrec.ranking": """rank Ranking Blend fit_blend ItemToItem LMItemScorer GBDTReranker
        evaluate_rankings""",
    "llmrec.evaluation": "compare save_report audit save_forecasts score_forecasts",
    "llmrec.training": "load_config save_examples train merge_adapter",
    "llmrec.cli": "",
    "llmrec.widgets": "EditSliders",
}
# What `from llmrec import ...` gave in 0.1, and where it is now.
NAMES_OF_0_1 = {
    "Catalog": "llmrec",
    "Codec": "llmrec.language",
    "DataError": "llmrec",
    "Dataset": "llmrec",
    "DecayedDirichlet": "llmrec.forecasters",
    "Edit": "llmrec",
    "EditError": "llmrec",
    "Forecast": "llmrec",
    "ForecastParseError": "llmrec.errors",
    "InterestEngine": "llmrec",
    "Interactions": "llmrec",
    "LLMForecaster": "llmrec.forecasters",
    "LanguageModel": "llmrec.language",
    "evaluate": "llmrec",
    "load_dataset": "llmrec",
    "make_windows": "llmrec.data",
    "parse_edited": "llmrec.parse_description_edits",
    "parse_wishes": "llmrec.parse_edits",
    "rank": "llmrec.ranking",
}


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_promises_the_names_on_the_list_and_no_others(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    if PUBLIC[package] and package != "llmrec.widgets":
        assert dir(module) == sorted(module.__all__)


def test_there_are_at_most_sixty_public_names() -> None:
    assert sum(len(names.split()) for names in PUBLIC.values()) <= 60


@pytest.mark.parametrize("name", NAMES_OF_0_1)
def test_a_name_of_0_1_is_there_or_its_import_says_where_it_is_now(name: str) -> None:
    home = NAMES_OF_0_1[name]
    if home == "llmrec":
        assert getattr(llmrec, name).__name__ == name
        return
    where = home if home.startswith("llmrec.parse") else f"{home}.{name}"
    code = f"from llmrec import {name}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ImportError: llmrec.{name} of version 0.1 is {where}: import that" in found.stderr
    module, _, today = where.rpartition(".")
    assert getattr(importlib.import_module(module), today).__name__ == today


@pytest.mark.parametrize("module", ["contracts", "evaluation.scores", "ranking.tilt"])
def test_a_module_of_0_1_that_held_a_public_name_says_where_it_is_now(module: str) -> None:
    with pytest.raises(ImportError, match=rf"llmrec\.{module} of version 0\.1 is llmrec\.\w+"):
        importlib.import_module(f"llmrec.{module}")


def test_the_old_place_of_make_windows_says_where_it_is_now() -> None:
    periods = importlib.import_module("llmrec.data.periods")
    with pytest.raises(ImportError, match=r"of version 0\.1 is llmrec\.data\.make_windows"):
        periods.make_windows  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        periods.nothing  # noqa: B018


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'llmrec\.data' has no attribute 'nothing'"):
        importlib.import_module("llmrec.data").nothing  # noqa: B018
