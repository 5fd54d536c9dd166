"""New title embeddings change nothing; trained ones are loaded completely or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmrec.data.versions import rename_parameter
from llmrec.errors import ModelLoadError
from llmrec.language.forward import embed_positions
from llmrec.language.heads import (
    TITLE_EMBEDDINGS_FILE,
    CategoryHead,
    TitleEmbeddings,
    Verbalizer,
    title_hashes,
)
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import pooled_position
from tests.language.tiny_models import LABELS

WIDTH, RANK = 32, 3
TITLES = ["Drama night", "Comedy of War", "1998"]


def make_embeddings(model: LanguageModel, *, trained: bool = True) -> TitleEmbeddings:
    torch.manual_seed(4)
    keys = title_hashes(model.encode([f" {title}" for title in TITLES]))
    embeddings = TitleEmbeddings(keys, WIDTH, RANK, dropout=0.5)
    if trained:
        for values in embeddings.parameters():
            torch.nn.init.normal_(values)
    return embeddings.eval()


def tick(title: str, *labels: str) -> str:
    return pooled_position([f" {text}" for text in (title, *labels)])


def embedded(model: LanguageModel, embeddings: TitleEmbeddings | None, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return embed_positions(model.model, model.encode_prompts([prompt]), embeddings)[0][0]


def test_new_title_embeddings_change_no_embedding(model: LanguageModel) -> None:
    prompt = f"To 3 Jan:{tick(TITLES[0], 'Drama')}"
    new = make_embeddings(model, trained=False)
    assert torch.equal(embedded(model, new, prompt), embedded(model, None, prompt))


def test_a_known_title_changes_its_own_position_as_in_the_formula(model: LanguageModel) -> None:
    embeddings = make_embeddings(model)
    prompt = f"{tick('Drama', 'War')}{tick(TITLES[1], 'Comedy', 'War')}{tick(TITLES[0], 'Drama')}"
    change = embedded(model, embeddings, prompt) - embedded(model, None, prompt)
    changed = [row for row in range(len(change)) if change[row].any()]
    assert len(changed) == 2
    for row, title, n in zip(changed, (1, 0), (3, 2), strict=True):
        expected = embeddings.input_projection.weight @ embeddings.vectors.weight[title] / n**0.5
        torch.testing.assert_close(change[row], expected.detach(), atol=1e-5, rtol=1e-4)


def test_a_title_in_running_text_is_no_title(model: LanguageModel) -> None:
    prompt = f" {TITLES[2]} {TITLES[0]}:{tick('unheard of', 'Drama')}"
    known = embedded(model, make_embeddings(model), prompt)
    assert torch.equal(known, embedded(model, None, prompt))


def test_dropout_drops_titles_in_training_only(model: LanguageModel) -> None:
    embeddings, positions = (
        make_embeddings(model),
        model.encode_prompts([tick(TITLES[0], "Drama") * 200])[0],
    )
    unchanged = embeddings(positions).any(dim=1)
    torch.manual_seed(0)
    dropped = embeddings.train()(positions).any(dim=1)
    assert unchanged.sum() == 200
    assert 60 < dropped.sum() < 140


def test_the_next_title_is_scored_by_the_vectors_of_the_inputs(model: LanguageModel) -> None:
    embeddings, states = make_embeddings(model), torch.randn(5, WIDTH)
    normed = states / states.pow(2).mean(dim=1, keepdim=True).sqrt()
    queries = normed @ embeddings.query_projection.weight.T
    expected = queries @ embeddings.vectors.weight.T + embeddings.bias
    torch.testing.assert_close(embeddings.scores(states * 9), expected, atol=1e-4, rtol=1e-4)


def test_a_model_with_title_embeddings_scores_a_prompt_alone_as_in_any_batch(
    model: LanguageModel,
) -> None:
    torch.manual_seed(1)
    head = CategoryHead(WIDTH, 4).eval()
    torch.nn.init.normal_(head.up.weight)
    embeddings, verbalizer = make_embeddings(model), Verbalizer(LABELS, model.encode)
    with_titles = LanguageModel("tiny", model.model, model.tokenizer, "", head, embeddings)
    prompts = [f"Drama:{tick(title, 'Drama') * n}" for n, title in enumerate(TITLES, start=1)]
    together = with_titles.score_categories(prompts, verbalizer)
    alone = np.vstack([with_titles.score_categories([prompt], verbalizer) for prompt in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    without = LanguageModel("tiny", model.model, model.tokenizer, "", head)
    assert np.abs(without.score_categories(prompts, verbalizer) - together).max() > 1e-3


def test_the_newest_prompts_need_no_forward_pass_again(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.language.model.CACHED_PROMPTS", 3)
    embeddings, head = make_embeddings(model), CategoryHead(WIDTH, 4).eval()
    with_titles = LanguageModel("tiny", model.model, model.tokenizer, "", head, embeddings)
    computed: list[str] = []

    def final_states(prompts: Sequence[str], depth: int | None) -> torch.Tensor:
        computed.extend(prompts)
        return model.final_states(prompts, depth)

    monkeypatch.setattr(with_titles, "final_states", final_states)
    first, *others = [f"Drama:{tick(TITLES[0], 'Drama') * n}" for n in range(1, 6)]
    once = with_titles.title_probabilities([first, others[0], first])
    again = with_titles.title_probabilities([first])
    assert computed == [first, others[0]]
    np.testing.assert_allclose(once[[0, 2]], [again[0], again[0]], atol=1e-6)
    with_titles.score_categories([first, others[0]], Verbalizer(LABELS, model.encode))
    assert computed == [first, others[0]], "category scores need the same states"
    with_titles.title_probabilities(others)
    assert computed == [first, *others]
    np.testing.assert_allclose(with_titles.title_probabilities([first]), again, atol=1e-6)
    assert computed == [first, *others, first]  # four came after it, and three are stored
    assert with_titles.title_probabilities([]).shape == (0, len(embeddings.keys))


def test_title_rows_are_columns_of_the_probabilities_or_minus_one(model: LanguageModel) -> None:
    with_titles = LanguageModel(
        "tiny", model.model, model.tokenizer, "", None, make_embeddings(model)
    )
    assert with_titles.title_rows([TITLES[2], "unheard of", TITLES[0]]).tolist() == [2, -1, 0]
    assert with_titles.title_rows([]).tolist() == []
    with pytest.raises(ValueError, match="has no title embeddings"):
        model.title_rows(TITLES)


def test_a_model_with_title_embeddings_generates_lines(model: LanguageModel) -> None:
    with_titles = LanguageModel(
        "tiny", model.model, model.tokenizer, title_embeddings=make_embeddings(model)
    )
    prompts = [tick(TITLES[1], "War"), f"{tick(TITLES[0], 'Drama') * 3} Drama"]
    lines = with_titles.generate(prompts, max_new_tokens=6)
    alone = [with_titles.generate([prompt], max_new_tokens=6)[0] for prompt in prompts]
    assert lines == alone


def test_title_embeddings_are_loaded_as_they_were_saved(
    tmp_path: Path, model: LanguageModel
) -> None:
    embeddings = make_embeddings(model)
    embeddings.save(tmp_path)
    found = TitleEmbeddings.load(tmp_path, WIDTH)
    assert not found.training
    assert torch.equal(found.keys, embeddings.keys)
    assert all(torch.equal(found.state_dict()[k], v) for k, v in embeddings.state_dict().items())
    position = model.encode_prompts([tick(TITLES[0], "Drama")])[0]
    assert torch.equal(found(position), embeddings(position))


def test_parameters_keep_their_names_of_0_1_in_files(tmp_path: Path, model: LanguageModel) -> None:
    embeddings = make_embeddings(model)
    embeddings.save(tmp_path)
    stored = {"vectors.weight", "into.weight", "asked.weight", "common"}
    assert load_file(tmp_path / TITLE_EMBEDDINGS_FILE).keys() == stored | {"keys"}
    names = {f"title_embeddings.{name}" for name, _ in embeddings.named_parameters()}
    assert {rename_parameter(f"memory.{key}") for key in stored} == names


def test_saved_title_embeddings_hold_no_title(tmp_path: Path, model: LanguageModel) -> None:
    make_embeddings(model).save(tmp_path)
    content = (tmp_path / TITLE_EMBEDDINGS_FILE).read_bytes()
    assert not any(title.encode() in content for title in TITLES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keys", None),
        ("common", None),
        ("common", torch.zeros(2)),
        ("vectors.weight", torch.zeros(2, RANK)),
        ("into.weight", torch.zeros(WIDTH + 1, RANK)),
        ("keys", torch.zeros(3, 3)),
    ],
    ids=["no keys", "no common", "fewer", "fewer vectors", "another width", "no keys at all"],
)
def test_title_embeddings_of_other_shapes_are_refused_by_name(
    tmp_path: Path, model: LanguageModel, name: str, value: torch.Tensor | None
) -> None:
    make_embeddings(model).save(tmp_path)
    content = load_file(tmp_path / TITLE_EMBEDDINGS_FILE)
    content.pop(name)
    save_file(
        content if value is None else content | {name: value}, tmp_path / TITLE_EMBEDDINGS_FILE
    )
    with pytest.raises(
        ModelLoadError,
        match=rf"{TITLE_EMBEDDINGS_FILE} holds no title embeddings of this base model",
    ):
        TitleEmbeddings.load(tmp_path, WIDTH)


def test_a_parameter_that_is_not_finite_is_refused_by_name(
    tmp_path: Path, model: LanguageModel
) -> None:
    embeddings = make_embeddings(model)
    embeddings.bias.data[1] = float("nan")
    embeddings.save(tmp_path)
    with pytest.raises(
        ModelLoadError, match=rf"{TITLE_EMBEDDINGS_FILE}: a parameter is not finite"
    ):
        TitleEmbeddings.load(tmp_path, WIDTH)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100])
def test_a_missing_or_damaged_file_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / TITLE_EMBEDDINGS_FILE).write_bytes(content)
    with pytest.raises(ModelLoadError, match=TITLE_EMBEDDINGS_FILE):
        TitleEmbeddings.load(tmp_path, WIDTH)
