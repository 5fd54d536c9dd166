"""One pass reads what each history alone would; the losses are those of the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.special import log_softmax

from llmrec.data.catalog import clean_text
from llmrec.data.counts import row_shares, target_counts
from llmrec.data.splits import rolling_training_windows, split_windows
from llmrec.errors import TrainingError
from llmrec.language.codec import TITLE_LENGTH, Codec
from llmrec.language.heads import CategoryHead, TitleEmbeddings, Verbalizer, title_hashes
from llmrec.language.model import LanguageModel
from llmrec.language.pretrained import add_lora, save_adapter
from llmrec.training.batches import TimelineBatches
from llmrec.training.dataset import load_examples, population_shifts, save_examples
from llmrec.training.objective import ReadPositions, TimelineModel
from tests.training.small import KINDS, PRIOR, adapted, codec_of, dataset, reader_of, saved

DATA = dataset()
PEOPLE = rolling_training_windows(DATA)
LINES = (
    " Drama 60%, other 40%: Drama is rising.",
    " War 9%, other 91%: War is fading, Drama is rising.",
    " Comedy 100%, other 0%",
)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return adapted(folder)[0]


@pytest.fixture(scope="module")
def codec(model: LanguageModel) -> Codec:
    return codec_of(DATA, model)


@pytest.fixture(scope="module")
def batch(
    model: LanguageModel, codec: Codec, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Give all timelines in one batch, with the lines of some."""
    folder = tmp_path_factory.mktemp("pairs")
    save_examples(folder, DATA, codec, PRIOR, PEOPLE, split_windows(DATA)["validation"])
    table = load_examples(folder)[1]["train"]
    (only,) = TimelineBatches(table, model, batch_positions=10**6, line_share=0.6).epoch(0)
    return only()


def slots_of(shares: torch.Tensor) -> ReadPositions:
    """Give slots at the end of the first prompt, nothing known before and no title taken."""
    places = torch.zeros(len(shares), dtype=torch.long)
    return ReadPositions(places, places, torch.zeros_like(shares), shares, places[:, None] - 1)


def key(log_prior: Any, shares: Any) -> str:
    return str(np.round(np.concatenate([log_prior, shares]), 5).tolist())


def memory_of(model: LanguageModel) -> TitleEmbeddings:
    """Give a memory of all titles of the log that moves what is read."""
    torch.manual_seed(7)
    titles = [f" {clean_text(title, TITLE_LENGTH)}" for title in DATA.catalog.titles]
    memory = TitleEmbeddings(title_hashes(model.encode(titles)), 32, 3)
    for values in memory.parameters():
        torch.nn.init.normal_(values)
    return memory


def alone(
    codec: Codec, model: LanguageModel, readout: CategoryHead, memory: TitleEmbeddings | None
) -> dict[str, np.ndarray]:
    """Give the scores of each window's history, read by its own prompt, by prior and target."""
    reading = LanguageModel("tiny", model.model, model.tokenizer, "", readout, memory)
    names, found = Verbalizer(codec.labels, model.encode), {}
    shifts = population_shifts([window for windows in PEOPLE for window in windows], PRIOR)
    for windows in PEOPLE:
        histories = [window.history for window in windows]
        scores = reading.score_categories([codec.prompt(history) for history in histories], names)
        shift = np.stack([shifts[history.cutoff] for history in histories])
        priors = log_softmax(np.log(PRIOR.category_weights(histories)) + shift, axis=1)
        priors = priors.astype(np.float32)
        shares = row_shares(target_counts(windows)).astype(np.float32)
        found |= {key(*two): row for *two, row in zip(priors, shares, scores, strict=True)}
    return found


@pytest.mark.parametrize("knows_titles", [False, True])
@pytest.mark.parametrize("depth", [None, 1])
def test_one_pass_over_timelines_gives_what_each_history_alone_gives(
    model: LanguageModel,
    codec: Codec,
    batch: dict[str, Any],
    depth: int | None,
    knows_titles: bool,
) -> None:
    if depth and model.is_encoder_decoder:
        pytest.skip("only decoders are read at a depth")
    memory = memory_of(model) if knows_titles else None
    reader = reader_of(model, codec, depth=depth, memory=memory).eval()
    expected = alone(codec, model, reader.category_head, memory)
    slots = batch["slots"]
    with torch.inference_mode():
        scores = reader.scores(batch["prompts"], slots).numpy()
    for *two, row in zip(slots.log_prior, slots.shares, scores, strict=True):
        np.testing.assert_allclose(row, expected[key(*two)], atol=1e-4)
    assert np.ptp(scores, axis=0).min() > 1e-2
    if not model.is_encoder_decoder:
        assert len(scores) == sum(map(len, PEOPLE))


def test_a_new_readout_forecasts_exactly_the_prior(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    reader, slots = reader_of(model, codec, random=False), batch["slots"]
    assert not reader.scores(batch["prompts"], slots).any()
    found = reader(batch["prompts"], slots)
    torch.testing.assert_close(found["read_loss"], found["counting_loss"])
    expected = -(slots.shares * slots.log_prior).sum(dim=1).mean()
    torch.testing.assert_close(found["loss"], expected)


def test_the_reading_loss_is_the_cross_entropy_of_the_updated_prior(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    reader, slots = reader_of(model, codec).eval(), batch["slots"]
    with torch.inference_mode():
        scores = reader.scores(batch["prompts"], slots)
        weights = slots.log_prior.exp() * scores.exp()
        weights /= weights.sum(dim=1, keepdim=True)
        expected = -(slots.shares * weights.log()).sum(dim=1).mean()
        torch.testing.assert_close(reader(batch["prompts"], slots)["loss"], expected)


def test_the_loss_of_titles_is_the_mean_over_what_was_taken_and_is_added_with_its_weight(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    memory, slots = memory_of(model), batch["slots"]
    reader = reader_of(model, codec, memory=memory, title_weight=0.25).eval()
    with torch.inference_mode():
        states = reader.states(batch["prompts"], slots)
        log_weights = memory.scores(states).log_softmax(dim=1)
        losses = [
            -row[title]
            for row, taken in zip(log_weights, slots.taken.tolist(), strict=True)
            for title in taken
            if title >= 0
        ]
        found = reader(batch["prompts"], slots)
    torch.testing.assert_close(found["title_loss"], torch.stack(losses).mean())
    expected = found["read_loss"] + 0.25 * found["title_loss"]
    torch.testing.assert_close(found["loss"], expected)


def line_losses(
    model: LanguageModel, requests: list[str], lines: tuple[str, ...]
) -> tuple[list[Any], list[list[int]], list[torch.Tensor]]:
    """Give the inputs, and the loss of every token of a line by the whole model, one at a time."""
    rows, tokens = model.positions(requests), model.encode(lines)
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
    reader = reader_of(model, codec).eval()
    with torch.inference_mode():
        rows, tokens, expected = line_losses(model, REQUESTS, LINES)
        for row, line, losses in zip(rows, tokens, expected, strict=True):
            torch.testing.assert_close(reader.line_loss([row], [line]), losses.mean())
        torch.testing.assert_close(reader.line_loss(rows, tokens), torch.cat(expected).mean())
        turned = reader.line_loss(rows[::-1], tokens[::-1])
        torch.testing.assert_close(turned, torch.cat(expected).mean())


def test_the_line_loss_is_added_with_its_weight(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    assert batch["lines"]
    found = reader_of(model, codec, line_weight=0.25).eval()(**batch)
    expected = found["read_loss"] + 0.25 * found["line_loss"]
    torch.testing.assert_close(found["loss"], expected)


def test_the_end_of_a_line_is_learned_even_if_padding_is_the_same_token(folder: Path) -> None:
    model, _ = adapted(folder, random=False)
    if not model.is_encoder_decoder:
        assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id
    reader = reader_of(model, codec_of(DATA, model))
    for name, values in reader.named_parameters():
        values.requires_grad_("lm_head" in name or "embed_tokens" in name or "shared" in name)
    rows, tokens = model.positions(REQUESTS), model.encode(LINES)

    def end_loss() -> float:
        with torch.inference_mode():
            return float(sum(losses[-1] for losses in line_losses(model, REQUESTS, LINES)[2]))

    before = end_loss()
    optimizer = torch.optim.Adam([p for p in reader.parameters() if p.requires_grad], lr=0.03)
    for _ in range(20):
        optimizer.zero_grad()
        reader.line_loss(rows, tokens).backward()
        optimizer.step()
    assert end_loss() < 0.7 * before


def test_gradients_reach_lora_readout_and_memory_and_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    model, _ = adapted(folder)
    codec = codec_of(DATA, model)
    save_examples(tmp_path, DATA, codec, PRIOR, PEOPLE, split_windows(DATA)["validation"])
    table = load_examples(tmp_path)[1]["train"]
    (only,) = TimelineBatches(table, model, batch_positions=10**6, line_share=0.5).epoch(0)
    reader = reader_of(model, codec, memory=memory_of(model), title_weight=0.1)
    reader(**only())["loss"].backward()
    for name, values in reader.named_parameters():
        trained = "lora_" in name or name.startswith(("readout.", "memory."))
        assert values.requires_grad == trained, name
        assert (values.grad is not None and bool(values.grad.any())) == trained, name


def test_layers_above_the_depth_get_no_gradient_from_reading(tmp_path: Path) -> None:
    model, _ = adapted(saved("llama", tmp_path))
    reader = reader_of(model, codec_of(DATA, model), depth=1)
    slots = slots_of(torch.eye(5)[:1])
    reader(model.positions(["Drama"]), slots)["loss"].backward()
    reached = {name for name, values in reader.named_parameters() if values.grad is not None}
    assert any("layers.0" in name for name in reached)
    assert not any("layers.1" in name for name in reached)


@pytest.mark.parametrize("shares", [torch.zeros(1, 5), torch.zeros(0, 5)], ids=["none", "no slot"])
def test_a_row_without_a_label_is_refused(
    model: LanguageModel, codec: Codec, shares: torch.Tensor
) -> None:
    slots = slots_of(shares)
    with pytest.raises(TrainingError, match="a row has no label"):
        reader_of(model, codec)(model.positions(["Drama"]), slots)


def test_a_line_without_tokens_is_refused(model: LanguageModel, codec: Codec) -> None:
    slots = slots_of(torch.eye(5)[:1])
    rows = model.positions(["Drama"])
    with pytest.raises(TrainingError, match="a row has no label: a line"):
        reader_of(model, codec)(rows, slots, rows, [[]])


def test_a_saved_adapter_reads_the_same_when_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    model, inside = adapted(folder)
    codec = codec_of(DATA, model)
    memory = memory_of(model)
    reader: TimelineModel = reader_of(model, codec, memory=memory).eval()
    save_adapter(inside, tmp_path, "tiny")
    reader.category_head.save(tmp_path)
    memory.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "readout.safetensors",
        "titles.safetensors",
    }
    loaded = LanguageModel.load(str(folder), adapter=tmp_path, device="cpu")
    prompts = [codec.prompt(windows[-1].history) for windows in PEOPLE]
    slots = replace(slots_of(torch.ones(len(prompts), 5)), row=torch.arange(len(prompts)))
    with torch.inference_mode():
        scores = reader.scores(model.positions(prompts), slots).numpy()
    found = loaded.score_categories(prompts, Verbalizer(codec.labels, loaded.encode))
    np.testing.assert_allclose(found, scores, atol=1e-4)


def test_targets_or_layers_that_match_nothing_are_refused_with_what_there_is(
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
    model, inside = adapted(folder, random=False)
    assert isinstance(inside, PeftModel)
    some = np.arange(20)
    expected = plain.final_logits(REQUESTS, some)
    np.testing.assert_allclose(model.final_logits(REQUESTS, some), expected, atol=1e-5)


def test_mixed_precision_finds_nearly_the_same_loss_and_every_gradient(
    model: LanguageModel, codec: Codec, batch: dict[str, Any]
) -> None:
    reader = reader_of(model, codec, memory=memory_of(model), title_weight=0.1)
    whole = reader(**batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = reader(**batch)["loss"]
    mixed.backward()
    assert mixed.item() == pytest.approx(whole.item(), rel=0.05)
    trained = [values for values in reader.parameters() if values.requires_grad]
    assert all(values.grad is not None and values.grad.dtype == values.dtype for values in trained)
