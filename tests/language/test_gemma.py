"""The name gemma-3-270m loads the model that its wheels hold, once its terms are agreed to."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmrec.data import gemma
from llmrec.data.embedded import GEMMA, cache_root
from llmrec.data.gemma import ACCEPT_TERMS
from llmrec.errors import MissingExtraError, ModelLoadError
from llmrec.language import pretrained
from llmrec.language.heads import CategoryHead, Verbalizer
from llmrec.language.model import LanguageModel
from tests.gemma_wheels import CHUNKS, install_fake_wheels, needs_gemma, needs_no_gemma


def load() -> LanguageModel:
    return LanguageModel.load(GEMMA.name, device="cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty cache folder; nothing is agreed to."""
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(ACCEPT_TERMS, raising=False)
    return cache_root()


@needs_no_gemma
def test_without_its_wheels_the_name_is_no_hub_id_but_a_missing_extra(cache: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"-r .*gemma-requirements\.txt"):
        load()


def test_before_the_terms_are_agreed_to_nothing_is_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_wheels(tmp_path, monkeypatch)
    with pytest.raises(ModelLoadError, match=ACCEPT_TERMS):
        load()
    assert not [path for path in cache.rglob("*") if path.suffix != ".lock"]


def test_parts_of_another_model_are_refused_by_their_hash(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_wheels(tmp_path, monkeypatch)
    monkeypatch.setenv(ACCEPT_TERMS, "1")
    with pytest.raises(ModelLoadError, match=f"not {gemma.FILE_SHA256}"):
        load()
    assert not (cache / GEMMA.name).exists()


def test_the_joined_parts_are_converted_once_and_the_terms_asked_for_once(
    cache: Path,
    tmp_path: Path,
    llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    converted: list[bytes] = []

    def convert(gguf: Path, folder: Path) -> None:
        converted.append(gguf.read_bytes())
        shutil.copytree(llama_folder, folder, dirs_exist_ok=True)

    install_fake_wheels(tmp_path, monkeypatch)
    monkeypatch.setattr(pretrained, "_convert_gguf", convert)
    sha256 = hashlib.sha256(b"".join(CHUNKS)).hexdigest()
    monkeypatch.setattr(gemma, "FILE_SHA256", sha256)
    monkeypatch.setenv(ACCEPT_TERMS, "1")
    first = load()
    assert gemma.TERMS[0] in capsys.readouterr().err
    monkeypatch.delenv(ACCEPT_TERMS)
    assert load().fingerprint == first.fingerprint
    assert capsys.readouterr().err == ""
    assert converted == [b"".join(CHUNKS)]
    assert first.name == GEMMA.name
    assert not list(cache.rglob("*.gguf"))


@pytest.fixture(scope="module")
def real() -> Any:
    """Give the real model; whoever runs this test agrees to the terms by the variable."""
    folder = cache_root() / GEMMA.name
    if os.environ.get(ACCEPT_TERMS) != "1" and not folder.exists():
        pytest.skip(f"the terms of {GEMMA.name} are not agreed to: {ACCEPT_TERMS}=1")
    return load()


@needs_gemma
@pytest.mark.slow
def test_the_real_weights_read_a_plain_sentence(real: LanguageModel) -> None:
    text = "The capital of France is Paris, and the capital of Germany is Berlin."
    ids = torch.tensor([real.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        perplexity = float(real.model(input_ids=ids, labels=ids).loss.exp())
    assert 9.0 < perplexity < 9.4


@needs_gemma
@pytest.mark.slow
def test_the_real_weights_score_categories_alone_and_by_a_head(real: LanguageModel) -> None:
    verbalizer = Verbalizer(["Drama", "Comedy", "Horror"], real.encode)
    prompts = ["To 3 Jan 1998: Drama 31%, Comedy 22%. To 10 Jan 1998:", "Horror 80%, horror,"]
    alone = [real.score_categories([prompt], verbalizer)[0] for prompt in prompts]
    together = real.score_categories(prompts, verbalizer)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together[1].argmax() == 2
    head = CategoryHead(640, 8, depth=9)
    torch.nn.init.normal_(head.up.weight, generator=torch.Generator().manual_seed(0))
    real.category_head = head
    try:
        found = real.score_categories(prompts, verbalizer)
    finally:
        real.category_head = None
    assert found.std() > 0.1
    assert np.abs(found - together).max() > 0.1
