"""One pass scores each history as alone, and the losses are those of the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.special import log_softmax

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.names import clean_text
from llmrec.data.splits import rolling_training_windows, split_windows
from llmrec.errors import TrainingError
from llmrec.language.codec import TITLE_LENGTH, Codec
from llmrec.language.heads import CategoryHead, TitleEmbeddings, Verbalizer, title_hashes
from llmrec.language.model import LanguageModel
from llmrec.training.batches import TimelineBatches
from llmrec.training.dataset import load_examples, population_shifts, save_examples
from llmrec.training.lora import add_lora, save_adapter
from llmrec.training.objective import ReadPositions
from tests.training.tiny_timelines import (
    FAMILIES,
    PRIOR,
    load_with_lora,
    make_codec,
    make_dataset,
    make_timeline_model,
    save_model,
)

DATA = make_dataset()
PEOPLE = rolling_training_windows(DATA)
LINES = (
    " Drama 60%, other 40%: Drama is rising.",
    " War 9%, other 91%: War is fading, Drama is rising.",
    " Comedy 100%, other 0%",
)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_with_lora(folder)[0]


@pytest.fixture(scope="module")
def codec(model: LanguageModel) -> Codec:
    return make_codec(DATA, model)


@pytest.fixture(scope="module")
def batch(
    model: LanguageModel, codec: Codec, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Give all timelines in one batch, with the lines of some."""
    folder = tmp_path_factory.mktemp("examples")
    save_examples(folder, DATA, codec, PRIOR, PEOPLE, split_windows(DATA)["validation"])
    table = load_examples(folder)[1]["train"]
    (only,) = TimelineBatches(table, model, batch_positions=10**6, line_share=0.6).epoch(0)
    return only()


def read_positions_of(shares: torch.Tensor) -> ReadPositions:
    """Give read positions at the end of the first prompt, with a flat prior and no titles."""
    zeros = torch.zeros(len(shares), dtype=torch.long)
    return ReadPositions(zeros, zeros, torch.zeros_like(shares), shares, zeros[:, None] - 1)


def key(log_prior: Any, shares: Any) -> str:
    return str(np.round(np.concatenate([log_prior, shares]), 5).tolist())


def random_titles(model: LanguageModel) -> TitleEmbeddings:
    """Give random embeddings of all titles of the log."""
    torch.manual_seed(7)
    titles = [f" {clean_text(title, TITLE_LENGTH)}" for title in DATA.catalog.titles]
    embeddings = TitleEmbeddings(title_hashes(model.encode(titles)), 32, 3)
    for values in embeddings.parameters():
        torch.nn.init.normal_(values)
    return embeddings


def score_each_alone(
    codec: Codec, model: LanguageModel, head: CategoryHead, titles: TitleEmbeddings | None
) -> dict[str, np.ndarray]:
    """Score each window's history by its own prompt; keys are prior and target."""
    with_heads = LanguageModel("tiny", model.model, model.tokenizer, "", head, titles)
    labels, by_key = Verbalizer(codec.labels, model.encode), {}
    shifts = population_shifts([window for windows in PEOPLE for window in windows], PRIOR)
    for windows in PEOPLE:
        histories = [window.history for window in windows]
        prompts = [codec.prompt(history) for history in histories]
        scores = with_heads.score_categories(prompts, labels)
        shift = np.stack([shifts[history.cutoff] for history in histories])
        priors = log_softmax(np.log(PRIOR.category_weights(histories)) + shift, axis=1)
        priors = priors.astype(np.float32)
        shares = row_shares(target_counts(windows)).astype(np.float32)
        by_key |= {key(*two): row for *two, row in zip(priors, shares, scores, strict=True)}
    return by_key


@pytest.mark.parametrize("with_titles", [False, True])
@pytest.mark.parametrize("depth", [None, 1])
def test_one_pass_over_timelines_gives_what_each_history_alone_gives(
    model: LanguageModel,
    codec: Codec,
    batch: dict[str, Any],
    depth: int | None,
    with_titles: bool,
) -> None:
    if depth and model.is_encoder_decoder:
        pytest.skip("only decoders have a depth")
    titles = random_titles(model) if with_titles else None
    timeline_model = make_timeline_model(model, codec, depth=depth, title_embeddings=titles).eval()
    expected = score_each_alone(codec, model, timeline_model.category_head, titles)
    read = batch["read_positions"]
    with torch.inference_mode():
        scores = timeline_model.scores(batch["prompts"], read).numpy()
    for *two, row in zip(read.log_prior, read.shares, scores, strict=True):
        np.testing.assert_allclose(row, expected[key(*two)], atol=1e-4)
    assert np.ptp(scores, axis=0).min() > 1e-2
    if not model.is_encoder_decoder:
        assert len(scores) == sum(map(len, PEOPLE))


def test_a_new_category_head_forecasts_exactly_the_prior(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    timeline_model = make_timeline_model(model, codec, random=False)
    read = batch["read_positions"]
    assert not timeline_model.scores(batch["prompts"], read).any()
    outputs = timeline_model(batch["prompts"], read)
    torch.testing.assert_close(outputs["read_loss"], outputs["counting_loss"])
    expected = -(read.shares * read.log_prior).sum(dim=1).mean()
    torch.testing.assert_close(outputs["loss"], expected)


def test_the_category_loss_is_the_cross_entropy_of_the_updated_prior(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    timeline_model, read = make_timeline_model(model, codec).eval(), batch["read_positions"]
    with torch.inference_mode():
        scores = timeline_model.scores(batch["prompts"], read)
        weights = read.log_prior.exp() * scores.exp()
        weights /= weights.sum(dim=1, keepdim=True)
        expected = -(read.shares * weights.log()).sum(dim=1).mean()
        torch.testing.assert_close(timeline_model(batch["prompts"], read)["loss"], expected)


def test_the_title_loss_is_the_mean_over_the_observed_titles_and_is_added_with_its_weight(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    embeddings, read = random_titles(model), batch["read_positions"]
    options = {"title_embeddings": embeddings, "title_weight": 0.25}
    timeline_model = make_timeline_model(model, codec, **options).eval()
    with torch.inference_mode():
        states = timeline_model.states(batch["prompts"], read)
        log_weights = embeddings.scores(states).log_softmax(dim=1)
        losses = [
            -row[title]
            for row, titles in zip(log_weights, read.target_titles.tolist(), strict=True)
            for title in titles
            if title >= 0
        ]
        outputs = timeline_model(batch["prompts"], read)
    torch.testing.assert_close(outputs["title_loss"], torch.stack(losses).mean())
    expected = outputs["read_loss"] + 0.25 * outputs["title_loss"]
    torch.testing.assert_close(outputs["loss"], expected)


def line_losses(
    model: LanguageModel, requests: list[str], lines: tuple[str, ...]
) -> tuple[list[Any], list[list[int]], list[torch.Tensor]]:
    """Give the inputs, and the loss of every token of a line by the whole model, one at a time."""
    rows, tokens = model.encode_prompts(requests), model.encode(lines)
    losses = []
    for row, line in zip(rows, tokens, strict=True):
        labels = torch.tensor([[*line, model.tokenizer.eos_token_id]])
        ids = torch.tensor([[token for ((token,),) in row]])
        if model.is_encoder_decoder:
            logits = model.model(input_ids=ids, labels=labels).logits[0]
        else:
            whole = torch.cat([ids, labels[:, :-1]], dim=1)
            logits = model.model(whole).logits[0, ids.shape[1] - 1 :]
        losses.append(torch.nn.functional.cross_entropy(logits, labels[0], reduction="none"))
    return rows, tokens, losses


REQUESTS = ["Drama, Drama. Next 7 days:", "Next:", "Comedy, War, Horror, War, War. Next 7 days:"]


def test_the_line_loss_is_that_of_the_whole_model_alone_and_in_a_batch(
    model: LanguageModel, codec: Codec
) -> None:
    timeline_model = make_timeline_model(model, codec).eval()
    with torch.inference_mode():
        rows, tokens, expected = line_losses(model, REQUESTS, LINES)
        for row, line, losses in zip(rows, tokens, expected, strict=True):
            torch.testing.assert_close(timeline_model.line_loss([row], [line]), losses.mean())
        torch.testing.assert_close(
            timeline_model.line_loss(rows, tokens), torch.cat(expected).mean()
        )
        reversed_loss = timeline_model.line_loss(rows[::-1], tokens[::-1])
        torch.testing.assert_close(reversed_loss, torch.cat(expected).mean())


def test_the_line_loss_is_added_with_its_weight(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    assert batch["lines"]
    outputs = make_timeline_model(model, codec, line_weight=0.25).eval()(**batch)
    expected = outputs["read_loss"] + 0.25 * outputs["line_loss"]
    torch.testing.assert_close(outputs["loss"], expected)


def test_the_end_of_a_line_is_learned_even_if_padding_is_the_same_token(folder: Path) -> None:
    model, _ = load_with_lora(folder, random=False)
    if not model.is_encoder_decoder:
        assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id
    timeline_model = make_timeline_model(model, make_codec(DATA, model))
    for name, values in timeline_model.named_parameters():
        values.requires_grad_("lm_head" in name or "embed_tokens" in name or "shared" in name)
    rows, tokens = model.encode_prompts(REQUESTS), model.encode(LINES)

    def end_loss() -> float:
        with torch.inference_mode():
            return float(sum(losses[-1] for losses in line_losses(model, REQUESTS, LINES)[2]))

    before = end_loss()
    optimizer = torch.optim.Adam(
        [p for p in timeline_model.parameters() if p.requires_grad], lr=0.03
    )
    for _ in range(20):
        optimizer.zero_grad()
        timeline_model.line_loss(rows, tokens).backward()
        optimizer.step()
    assert end_loss() < 0.7 * before


def test_gradients_reach_lora_and_both_heads_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    model, _ = load_with_lora(folder)
    codec = make_codec(DATA, model)
    save_examples(tmp_path, DATA, codec, PRIOR, PEOPLE, split_windows(DATA)["validation"])
    table = load_examples(tmp_path)[1]["train"]
    (only,) = TimelineBatches(table, model, batch_positions=10**6, line_share=0.5).epoch(0)
    options = {"title_embeddings": random_titles(model), "title_weight": 0.1}
    timeline_model = make_timeline_model(model, codec, **options)
    timeline_model(**only())["loss"].backward()
    for name, values in timeline_model.named_parameters():
        trained = "lora_" in name or name.startswith(("category_head.", "title_embeddings."))
        assert values.requires_grad == trained, name
        assert (values.grad is not None and bool(values.grad.any())) == trained, name


def test_layers_above_the_depth_get_no_gradient_from_category_scores(tmp_path: Path) -> None:
    model, _ = load_with_lora(save_model("llama", tmp_path))
    timeline_model = make_timeline_model(model, make_codec(DATA, model), depth=1)
    read = read_positions_of(torch.eye(5)[:1])
    timeline_model(model.encode_prompts(["Drama"]), read)["loss"].backward()
    parameters = timeline_model.named_parameters()
    reached = {name for name, values in parameters if values.grad is not None}
    assert any("layers.0" in name for name in reached)
    assert not any("layers.1" in name for name in reached)


@pytest.mark.parametrize(
    "shares", [torch.zeros(1, 5), torch.zeros(0, 5)], ids=["no category", "no read position"]
)
def test_a_row_without_a_label_is_refused(
    model: LanguageModel, codec: Codec, shares: torch.Tensor
) -> None:
    with pytest.raises(TrainingError, match="a row has no label"):
        make_timeline_model(model, codec)(
            model.encode_prompts(["Drama"]), read_positions_of(shares)
        )


def test_a_line_without_tokens_is_refused(model: LanguageModel, codec: Codec) -> None:
    read, rows = read_positions_of(torch.eye(5)[:1]), model.encode_prompts(["Drama"])
    with pytest.raises(TrainingError, match="a row has no label: a line"):
        make_timeline_model(model, codec)(rows, read, rows, [[]])


def test_a_saved_adapter_gives_the_same_scores_when_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    model, adapted = load_with_lora(folder)
    codec = make_codec(DATA, model)
    titles = random_titles(model)
    timeline_model = make_timeline_model(model, codec, title_embeddings=titles).eval()
    save_adapter(adapted, tmp_path, "tiny")
    timeline_model.category_head.save(tmp_path)
    titles.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "readout.safetensors",
        "titles.safetensors",
    }
    loaded = LanguageModel.load(str(folder), adapter=tmp_path, device="cpu")
    prompts = [codec.prompt(windows[-1].history) for windows in PEOPLE]
    read = replace(read_positions_of(torch.ones(len(prompts), 5)), row=torch.arange(len(prompts)))
    with torch.inference_mode():
        expected = timeline_model.scores(model.encode_prompts(prompts), read).numpy()
    scores = loaded.score_categories(prompts, Verbalizer(codec.labels, loaded.encode))
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_targets_or_layers_that_match_nothing_are_refused_with_a_list_of_those_that_do(
    folder: Path,
) -> None:
    model = LanguageModel.load(str(folder), device="cpu").model
    options = {"rank": 2, "alpha": 4, "dropout": 0.0}
    with pytest.raises(TrainingError, match=r"targets \['query'\].*modules are called .*lm_head"):
        add_lora(model, **options, targets=["query"])
    known = ["q"] if model.config.is_encoder_decoder else ["q_proj"]
    with pytest.raises(TrainingError, match=r"layers \[7\]"):
        add_lora(model, **options, targets=known, layers=[7])


def test_lora_changes_nothing_before_it_is_trained(folder: Path) -> None:
    plain = LanguageModel.load(str(folder), device="cpu")
    model, adapted = load_with_lora(folder, random=False)
    assert isinstance(adapted, PeftModel)
    tokens = np.arange(20)
    expected = plain.final_logits(REQUESTS, tokens)
    np.testing.assert_allclose(model.final_logits(REQUESTS, tokens), expected, atol=1e-5)


def test_mixed_precision_gives_nearly_the_same_loss_and_every_gradient(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    options = {"title_embeddings": random_titles(model), "title_weight": 0.1}
    timeline_model = make_timeline_model(model, codec, **options)
    full = timeline_model(**batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = timeline_model(**batch)["loss"]
    mixed.backward()
    assert mixed.item() == pytest.approx(full.item(), rel=0.05)
    trained = [values for values in timeline_model.parameters() if values.requires_grad]
    assert all(values.grad is not None and values.grad.dtype == values.dtype for values in trained)
