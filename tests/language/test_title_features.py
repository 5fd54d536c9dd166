"""Vectors of titles by any encoder: the same as the encoder gives, cached, and which items lack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from llmrec import Catalog, cli, load_dataset
from llmrec.errors import DataError, ModelLoadError
from llmrec.language.encoder import TextEncoder
from llmrec.language.title_features import embed_item_titles, with_encoded_titles
from llmrec.ranking.feature_scorers import feature_scorers
from llmrec.types import FloatArray
from tests.language.tiny_models import save_bert
from tests.test_whole_engine import USERS, answers, load, table

SCRIPTS = ["Война и мир", "源氏物語", "ألف ليلة وليلة", "महाभारत", "War and Peace", "Война и мир"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert.v2"))


@pytest.fixture
def encoder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextEncoder:
    """Give an encoder, with an empty cache beside it."""
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    return TextEncoder.load(str(folder), device="cpu")


def catalog_of(titles: Sequence[str | None]) -> Catalog:
    ids = [f"i{place}" for place in range(len(titles))]
    return Catalog.from_frame(
        pd.DataFrame({"item_id": ids, "title": titles, "categories": "books"})
    )


def without_embedding(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> TextEncoder:
    def embed(texts: Sequence[str]) -> FloatArray:
        raise AssertionError(f"{texts} were embedded again")

    monkeypatch.setattr(encoder, "embed", embed)
    return encoder


def test_titles_in_several_scripts_have_the_vectors_of_the_encoder(encoder: TextEncoder) -> None:
    catalog = catalog_of(SCRIPTS)
    found = embed_item_titles(catalog, encoder)
    np.testing.assert_allclose(found, encoder.embed(catalog.titles), atol=1e-6)
    assert found[0].tobytes() == found[5].tobytes()


def test_the_same_titles_are_embedded_once_in_any_order(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed_item_titles(catalog_of(SCRIPTS), encoder)
    cached = without_embedding(encoder, monkeypatch)
    again = embed_item_titles(catalog_of(SCRIPTS[::-1]), cached)
    assert again[::-1].tobytes() == first.tobytes()
    with pytest.raises(AssertionError, match="embedded again"):
        embed_item_titles(catalog_of([*SCRIPTS, "Emma"]), cached)


def test_a_damaged_cache_is_made_again(encoder: TextEncoder, tmp_path: Path) -> None:
    first = embed_item_titles(catalog_of(SCRIPTS), encoder)
    (file,) = tmp_path.rglob("vectors.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.warns(UserWarning, match="built again: .*vectors"):
        again = embed_item_titles(catalog_of(SCRIPTS), encoder)
    assert again.tobytes() == first.tobytes()


def test_an_encoder_of_other_weights_or_another_width_is_not_given_cached_vectors(
    encoder: TextEncoder, folder: Path, tmp_path: Path
) -> None:
    first = embed_item_titles(catalog_of(SCRIPTS), encoder)
    changed = TextEncoder.load(str(folder), device="cpu")
    with torch.no_grad():
        changed.model.get_input_embeddings().weight *= 2
    others = embed_item_titles(catalog_of(SCRIPTS), changed)
    assert not np.allclose(others, first, atol=1e-3)
    wide = TextEncoder.load(str(save_bert(tmp_path / "wide", hidden_size=64)), device="cpu")
    wide.name = encoder.name
    assert embed_item_titles(catalog_of(SCRIPTS), wide).shape == (6, 64)


def test_an_item_without_a_title_or_a_word_in_it_has_no_features(encoder: TextEncoder) -> None:
    found = embed_item_titles(catalog_of(["Emma", None, "", "?!", "Emma 2", "10"]), encoder)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, True, False, False]
    assert not np.isnan(found[[0, 4, 5]]).any()


@pytest.mark.parametrize(
    ("titles", "reason"),
    [(["Emma", "Emma", None], "all are 'Emma'"), ([None, "", "!"], "no item has one")],
)
def test_titles_that_say_nothing_are_refused(
    titles: list[str | None], reason: str, encoder: TextEncoder
) -> None:
    with pytest.raises(DataError, match=f"3 items no two titles differ .{reason}"):
        embed_item_titles(catalog_of(titles), encoder)


def test_an_encoder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError, match=r"encoder .* cannot be loaded"):
        embed_item_titles(catalog_of(SCRIPTS), str(tmp_path / "empty"))


def test_an_engine_that_fit_was_given_an_encoder_for_serves_without_it(
    encoder: TextEncoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, log = tmp_path / "engine", tmp_path / "small.csv"
    table().to_csv(log, index=False)
    options = ["--effort", "quick", "--model", "none", "--period", "7D", "--encoder", str(folder)]
    shown = CliRunner().invoke(cli.app, ["fit", "--data", str(log), "--out", str(out), *options])
    assert shown.exit_code == 0, shown.output
    cached = without_embedding(encoder, monkeypatch)
    data = with_encoded_titles(load_dataset(log, period="7D"), cached)
    (name,) = data.catalog.features
    assert name.startswith("bert-v2")
    engine = load(out, data=data)
    members = {one["name"] for one in engine.settings.report["list"]["members"]}
    blended = [name for name in feature_scorers(data.catalog) if "EaseByText" not in name]
    assert set(blended) <= members
    bare = load(out, data=load_dataset(log, period="7D"))
    assert answers(bare, USERS) == answers(engine, USERS)
    with pytest.raises(DataError, match=f"has features '{name}' already"):
        with_encoded_titles(bare.dataset, cached)
