"""The tiny models, made once for all tests of language."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrec.language.model import LanguageModel
from tests.language import tiny_models


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> LanguageModel:
    return LanguageModel.load(str(llama_folder), device="cpu")


@pytest.fixture(scope="session")
def t5(t5_folder: Path) -> LanguageModel:
    return LanguageModel.load(str(t5_folder), device="cpu")


@pytest.fixture(scope="session", params=["llama", "t5"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    loaded: LanguageModel = request.getfixturevalue(request.param)
    return loaded
