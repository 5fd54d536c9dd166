"""Checks of a model before its first step: parts, and states and losses of one batch.

Training and forecasting go through different code, so what training reads of a batch is compared
with what a forecast reads of one prompt alone. One comparison finds padding that is seen, a read
position beside the end of a tick, a prompt whose tokens are learned, and an end that is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llmrec.errors import DataError, TrainingError
from llmrec.language.forward import DecoderState
from llmrec.language.generation import continuation_logprobs
from llmrec.language.tokenization import Position, tokenizer_fingerprint
from llmrec.training.batches import LineDataset, TimelineBatches
from llmrec.training.gradient_checks import check_gradients, nonzero_parameters
from llmrec.training.lora import LAYER_NUMBER
from llmrec.training.objective import ReadPositions, TimelineModel

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel
    from llmrec.training.dataset import DatasetManifest


MIN_VOCABULARY = 0.9  # part of the embeddings that a tokenizer has tokens for; the rest is padding
MIN_DISTANCE = 1e-7  # between labels' embeddings, as 1 - cosine; rounding gives less
LINE_TOKENS = (8, 5)  # of the lines that are compared: what is behind them is left out
N_STATES = 4  # read positions that are compared with prompts alone


def check_tokenizer(model: LanguageModel, manifest: DatasetManifest) -> None:
    """Check that a tokenizer fits its model, and is the one that the examples were counted with.

    Raises
    ------
    DataError, TrainingError
        With what differs.
    """
    tokenizer, n_rows = model.tokenizer, model.model.get_input_embeddings().num_embeddings
    if len(tokenizer) < MIN_VOCABULARY * n_rows:
        raise TrainingError(
            f"the tokenizer of {model.name} has {len(tokenizer)} tokens and the model {n_rows} "
            "embeddings: it is another model's; give the folder that belongs together"
        )
    known: set[int] = set()
    for config in (model.model.config, model.model.generation_config):
        ends = config.eos_token_id
        known |= set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if tokenizer.eos_token_id is None or (known and tokenizer.eos_token_id not in known):
        raise TrainingError(
            f"the end token of {model.name}'s tokenizer is {tokenizer.eos_token_id}, and its model "
            f"ends with {sorted(known)}: lines would never end; mend eos_token in "
            "tokenizer_config.json"
        )
    if manifest.tokenizer not in ("", found := tokenizer_fingerprint(tokenizer)):
        raise DataError(
            f"the examples were counted with tokenizer {manifest.tokenizer}, and {model.name} has "
            f"{found}: run finetune/make_dataset.py --model {model.name}"
        )


def check_parameters(timeline_model: TimelineModel, labels: Sequence[str]) -> None:
    """Check that parameters are finite, and that each label has an embedding of its own.

    Raises
    ------
    TrainingError
        Naming the parameter, or the labels.
    """
    for name, values in timeline_model.named_parameters():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise TrainingError(f"{name} holds values that are not finite: fetch the model again")
    embeddings = timeline_model.label_embeddings.double().cpu()  # each of length 1
    cosines = (embeddings @ embeddings.T).fill_diagonal_(0)
    if not bool((cosines < 1 - MIN_DISTANCE).all()):
        first, second = divmod(int(cosines.nan_to_num(2).argmax()), len(embeddings))
        raise TrainingError(
            f"labels {labels[first]!r} and {labels[second]!r} have the same embedding, so nothing "
            "can tell them apart: rename one of the categories"
        )


def check_lora(model: nn.Module, layers: Collection[int], targets: Collection[str]) -> None:
    """Check that LoRA is in every layer and target asked for, and that both halves are trained.

    Raises
    ------
    TrainingError
        Naming what is missing or frozen.
    """
    found: set[tuple[int, str]] = set()
    for name, module in model.named_modules():
        layer = LAYER_NUMBER.search(f".{name}.")
        if not hasattr(module, "lora_A") or not layer or int(layer[1]) not in layers:
            continue
        found.add((int(layer[1]), name.rpartition(".")[2]))
        halves = {half: getattr(module, half) for half in ("lora_A", "lora_B")}
        for half, inside in halves.items():
            trained = [values.requires_grad for values in inside.parameters()]
            if not trained or not all(trained):
                raise TrainingError(f"{name}.{half} is frozen, or not there: LoRA would not learn")
    missing: dict[str, set[Any]] = {
        "layers": set(layers) - {layer for layer, _ in found},
        "targets": set(targets) - {target for _, target in found},
    }
    for what, names in missing.items():
        if names:
            raise TrainingError(f"lora.{what}: there is no LoRA in {sorted(names)}; leave them out")


def check_lengths(model: LanguageModel, batches: TimelineBatches) -> None:
    """Refuse prompts, or requests with their lines, that are longer than the model's context.

    Raises
    ------
    TrainingError
        With the lengths.
    """
    longest = max(map(len, batches.prompts))
    pairs = zip(batches.requests, batches.lines, strict=True)
    behind = 0 if model.is_encoder_decoder else 1
    asked = max(len(request) + behind * (len(line) + 1) for request, line in pairs)
    if max(longest, asked) > model.context_length:
        raise TrainingError(
            f"a prompt has {longest} positions, a request with its line {asked}, and {model.name} "
            f"takes {model.context_length}: make the examples with a smaller --budget"
        )


def check_first_batch(
    model: LanguageModel,
    timeline_model: TimelineModel,
    batches: TimelineBatches,
    *,
    lines_follow: bool = False,
) -> None:
    """Compare a batch's states and losses with those of forecasts, and look where gradients go.

    Nothing is changed by it: neither parameters nor the state of random numbers. Lines are checked
    if the batches hold some, or if ``lines_follow`` in a run of their own.

    Raises
    ------
    TrainingError
        With what differs, and by how much.
    """
    batch = dict(batches.epoch(0)[0]())
    batch["read_positions"] = batch["read_positions"].to(model.model.device)
    was_training = timeline_model.training
    timeline_model.eval()
    _check_start(timeline_model, batch)
    with nonzero_parameters(timeline_model):
        _check_states(model, timeline_model, batch["prompts"], batch["read_positions"])
        requests, lines = short_lines(batches)
        if batches.line_share or lines_follow:
            check_lines(model, timeline_model, requests, lines)
        if batches.line_share:
            batch |= {"requests": requests, "lines": lines}
        zeros = model.is_encoder_decoder and not batches.line_share
        check_gradients(timeline_model, batch, zeros=zeros)
    timeline_model.train(was_training)


def short_lines(
    batches: TimelineBatches | LineDataset,
) -> tuple[list[list[Position]], list[list[int]]]:
    """Give the shortest requests, and the beginnings of their lines.

    These differ in length, so that there is padding.
    """
    lengths = [len(request) for request in batches.requests]
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)[: len(LINE_TOKENS)]
    lines = [batches.lines[row][:n] for row, n in zip(rows, LINE_TOKENS, strict=False)]
    return [batches.requests[row] for row in rows], lines


def check_lines(
    model: LanguageModel,
    timeline_model: TimelineModel,
    requests: Sequence[list[Position]],
    lines: Sequence[list[int]],
) -> None:
    """Check that the loss of lines is that of their tokens and ends, and of nothing else.

    Raises
    ------
    TrainingError
        With both losses.
    """

    def start(rows: Sequence[list[Position]], use_cache: bool) -> DecoderState:
        titles = timeline_model.title_embeddings
        return DecoderState(model.model, rows, titles, use_cache=use_cache)

    logprobs = [
        float(continuation_logprobs(start, request, [[*line, model.end_token_id]])[0])
        for request, line in zip(requests, lines, strict=True)
    ]
    # Also one by one: what is left out of a mean may happen to be as large as the mean.
    for rows in (range(len(lines)), *([row] for row in range(len(lines)))):
        with torch.no_grad():
            own = [requests[row] for row in rows], [lines[row] for row in rows]
            loss = float(timeline_model.line_loss(*own))
        n_tokens = sum(len(lines[row]) + 1 for row in rows)
        expected = -sum(logprobs[row] for row in rows) / n_tokens
        if not abs(loss - expected) <= _tolerance(model) * expected:
            raise TrainingError(
                f"the loss of lines is {loss:.4f}, and their tokens and ends after their requests "
                f"have {expected:.4f} nats a token: it holds other positions, or lacks some"
            )


def _check_start(timeline_model: TimelineModel, batch: Mapping[str, Any]) -> None:
    """Check that a new category head changes nothing: the loss is that of counting."""
    with torch.no_grad():
        outputs = timeline_model(**batch)
    loss, counting = float(outputs["read_loss"]), float(outputs["counting_loss"])
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} before training, in {timeline_model.model.dtype}: choose dtype: "
            "bfloat16 or float32, or look at the model"
        )
    if not abs(loss - counting) <= 1e-4 * max(1.0, abs(counting)):
        raise TrainingError(
            f"training starts from a loss of {loss:.4f}, and counting's is {counting:.4f}: a new "
            "category head gives scores of 0, so the head or the prior is another one"
        )


def _check_states(
    model: LanguageModel,
    timeline_model: TimelineModel,
    prompts: Sequence[list[Position]],
    read_positions: ReadPositions,
) -> None:
    """Check that a batch reads at each read position what the prompt up to there gives alone."""
    # One more sequence, longer than the others, so that all of them are padded.
    padded = [*prompts, [*max(prompts, key=len), *prompts[0][-2:]]]
    places = torch.linspace(0, len(read_positions.row) - 1, N_STATES).long().unique().tolist()
    with torch.no_grad():
        states = timeline_model.states(padded, read_positions)[places].float()
        for place, state in zip(places, states, strict=True):
            prompt = prompts[int(read_positions.row[place])]
            cut = prompt[: len(prompt) - int(read_positions.back[place])]
            alone = _state_of(model, timeline_model, cut)
            difference = float((state - alone).norm() / alone.norm())
            if not difference <= _tolerance(model):
                raise TrainingError(
                    f"the hidden state at read position {place} of a batch differs from that of "
                    f"the prompt up to there, alone, by {difference:.1%}: it is read at another "
                    "position, sees what comes later, or sees padding"
                )
            if len(cut) > 2 and torch.equal(_state_of(model, timeline_model, cut[:1]), alone):
                raise TrainingError("hidden states do not depend on the prompt: look at the model")


def _state_of(
    model: LanguageModel, timeline_model: TimelineModel, prompt: list[Position]
) -> Tensor:
    """(d,) hidden state of a prompt alone, as a forecast reads it."""
    state = DecoderState(model.model, [prompt], timeline_model.title_embeddings, use_cache=False)
    return state.hidden_states(timeline_model.category_head.depth)[0].float()


def _tolerance(model: LanguageModel) -> float:
    """Give the relative difference that rounding explains: 7e-7 and 0.008 were measured."""
    eps: float = torch.finfo(model.model.dtype).eps
    return 1e-4 if model.model.dtype == torch.float32 else math.sqrt(eps)
