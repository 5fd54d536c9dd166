"""A small T5 or decoder that starts from nothing, trained on one or several logs at once."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from llmrec.data.readers import open_log
from llmrec.data.splits import sample_windows, split_timelines
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.heads import CategoryHead, Verbalizer, label_embeddings
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import POOL_END, POOL_SEPARATOR, POOL_START
from llmrec.training.batches import TimelineBatches
from llmrec.training.config import TrainingConfig
from llmrec.training.dataset import MANIFEST, DatasetManifest, load_examples, save_examples
from llmrec.training.objective import TimelineModel
from llmrec.training.run import make_validation

if TYPE_CHECKING:
    import datasets


SPECIAL = ("<pad>", "</s>", "<unk>")
PAD, END, UNKNOWN = range(3)
CONTEXT = 512  # positions; T5 knows distances only, so this is what a prompt may cost
DECODER_CONTEXT = 1024  # a decoder writes its line behind the prompt
BYTE_LOGPROB = -1_000.0  # log-probability of a byte: below that of any text spelled in letters
_ALPHABET = string.ascii_letters + string.digits + string.punctuation + "▁"
_MARKS = re.compile(f"[{POOL_START}{POOL_END}{POOL_SEPARATOR}\n]")
C = TypeVar("C", bound=PreTrainedConfig)
M = TypeVar("M", bound=PreTrainedModel)


def build_t5(
    texts: Iterable[str],
    *,
    vocab_size: int = 4_000,
    d_model: int = 128,
    layers: int = 3,
    heads: int = 4,
    d_ff: int = 384,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """Make an untrained encoder-decoder, and the tokenizer that its logs' texts ask for.

    It has the gated feed-forward layers of T5 1.1 and the tied embeddings of T5. With
    ``save_pretrained`` into one folder both load like any model.

    Parameters
    ----------
    texts
        Prompts, requests and lines that the vocabulary is learned from.
    vocab_size
        Most pieces it may have, bytes included (see `train_tokenizer`).
    d_model, layers, heads, d_ff
        Width, layers of the encoder and of the decoder, attention heads, inner width.
    dropout
        While it is trained.
    seed
        Of the first parameters.

    Raises
    ------
    ValueError
        If the width cannot be divided among the heads, or the vocabulary is too small.
    """
    _check_heads(d_model, heads)
    tokenizer = train_tokenizer(texts, vocab_size)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=d_model,
        d_kv=d_model // heads,
        d_ff=d_ff,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        dropout_rate=dropout,
        feed_forward_proj="gated-gelu",
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
    )
    return _untrained(T5ForConditionalGeneration, config, seed), tokenizer


def build_decoder(
    texts: Iterable[str],
    *,
    vocab_size: int = 4_000,
    d_model: int = 192,
    layers: int = 4,
    heads: int = 4,
    d_ff: int = 512,
    seed: int = 0,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Make an untrained decoder with the layers of Llama, as `build_t5` makes an encoder-decoder.

    Raises
    ------
    ValueError
        If the width cannot be divided among the heads, or the vocabulary is too small.
    """
    _check_heads(d_model, heads)
    tokenizer = train_tokenizer(texts, vocab_size, end="")
    tokenizer.model_max_length = DECODER_CONTEXT
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=d_ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=DECODER_CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )
    return _untrained(LlamaForCausalLM, config, seed), tokenizer


NEW_MODELS = {
    "new": build_t5,
    "new-decoder": build_decoder,
}  # what a config may start from instead of a model


def _check_heads(d_model: int, heads: int) -> None:
    if d_model % heads:
        raise ValueError(f"d_model {d_model} is not divisible by {heads} heads")


def _untrained(kind: Callable[[C], M], config: C, seed: int) -> M:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, end: str = SPECIAL[END]
) -> PreTrainedTokenizerFast:
    """Learn a Unigram vocabulary (Kudo 2018, arXiv 1804.10959) that can spell every text.

    What no piece covers is spelled in UTF-8 bytes. Spaces are kept as they are, so what is read is
    what was written. ``end`` is the special token that stands after what is encoded, if any.

    Raises
    ------
    ValueError
        If ``vocab_size`` has no room for special tokens, letters and bytes.
    """
    spelling = [f"<0x{byte:02X}>" for byte in range(256)]
    room = vocab_size - len(spelling)
    if room < len(SPECIAL) + 2 * len(_ALPHABET):
        raise ValueError(f"vocab_size {vocab_size} is too small for letters, bytes and some words")
    learned = Tokenizer(models.Unigram())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=room,
        special_tokens=list(SPECIAL),
        unk_token=SPECIAL[UNKNOWN],
        initial_alphabet=list(_ALPHABET),
        show_progress=False,
    )
    learned.train_from_iterator((part for text in texts for part in _MARKS.split(text)), trainer)
    pieces = [tuple(piece) for piece in json.loads(learned.to_str())["model"]["vocab"]]
    pieces += [(byte, BYTE_LOGPROB) for byte in spelling]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=UNKNOWN, byte_fallback=True))
    tokenizer.pre_tokenizer = learned.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}".strip(), special_tokens=[(SPECIAL[END], END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        unk_token=SPECIAL[UNKNOWN],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


VALIDATION_WINDOWS = 400  # validation windows of a log, drawn at random


class MultiDatasetModel(nn.Module):
    """A `TimelineModel` that looks at the labels of the log that a batch says it is of.

    All of the model may be trained: labels are embedded as its table is at the moment.

    Parameters
    ----------
    labels
        Of each log, by its name.
    """

    def __init__(
        self,
        model: LanguageModel,
        category_head: CategoryHead,
        labels: Mapping[str, Sequence[str]],
        *,
        line_weight: float,
    ) -> None:
        super().__init__()
        # The first names that parameters have are those they are trained by.
        self.model, self.category_head = model.model, category_head
        self.names = {log: Verbalizer(texts, model.encode) for log, texts in labels.items()}
        self.reader = TimelineModel(
            model.model,
            category_head,
            self._embedded(next(iter(labels))),
            end=model.end,
            line_weight=line_weight,
        )

    def of(self, log: str) -> TimelineModel:
        """Give the reader, turned to a log."""
        self.reader.names = self._embedded(log)
        return self.reader

    def forward(self, log: str, **batch: Any) -> dict[str, Tensor]:
        """Give the loss of one log's batch, see `TimelineModel`."""
        found: dict[str, Tensor] = self.of(log)(**batch)
        return found

    def _embedded(self, log: str) -> Tensor:
        return label_embeddings(self.names[log], self.model.get_input_embeddings().weight)


class MultiDatasetBatches:
    """The batches of several logs in one random order; each says which log it is of."""

    def __init__(self, logs: Mapping[str, TimelineBatches], seed: int = 0) -> None:
        self.logs, self.seed = logs, seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        batches = [
            partial(_named, log, batch)
            for log, examples in self.logs.items()
            for batch in examples.epoch(n)
        ]
        order = np.random.default_rng((self.seed, n)).permutation(len(batches))
        return [batches[at] for at in order]


def multi_dataset_validation(
    several: MultiDatasetModel, held_out: Mapping[str, TimelineBatches]
) -> Callable[[], dict[str, float]]:
    """Give a function that validates on each log (``log_loss ml-100k``) and takes the means."""
    functions = {log: make_validation(several.reader, one) for log, one in held_out.items()}

    def validate() -> dict[str, float]:
        found = {}
        for log, function in functions.items():
            several.of(log)
            found[log] = function()
        each = {f"{name} {log}": v for log, values in found.items() for name, v in values.items()}
        names = next(iter(found.values()))
        return each | {
            name: float(np.mean([values[name] for values in found.values()])) for name in names
        }

    return validate


def examples_for(config: TrainingConfig, log: str) -> tuple[DatasetManifest, datasets.DatasetDict]:
    """Read a log's examples from their folder in ``config.pairs``; write them first if it is new.

    They hold nothing of the newest stretch of the log, nor of the test targets. Prompts are cut by
    letters, not by a model's tokens: its vocabulary may still have to be made of them.

    Raises
    ------
    DataError
        If the folder holds examples for other prompts.
    """
    folder = Path(config.examples) / re.sub(r"[^\w.-]+", "-", log)
    if not (folder / MANIFEST).exists():
        dataset = open_log(log)
        people, held_out = split_timelines(dataset)
        codec = Codec(
            dataset.catalog.categories,
            person=dataset.person,
            noun=dataset.noun,
            template=config.template,
            budget=config.budget,
        )
        prior, validation = (
            DecayedDirichlet().fit(held_out),
            sample_windows(held_out, VALIDATION_WINDOWS),
        )
        save_examples(folder, dataset, codec, prior, people, validation, seed=config.seed)
    manifest, parts = load_examples(folder)
    found, wanted = (manifest.prompt, manifest.budget), (config.template, config.budget)
    if found != wanted:
        raise DataError(
            f"{folder} holds examples for {found}, and the config says {wanted}: delete it, or "
            "choose another folder"
        )
    return manifest, parts


def training_texts(parts: datasets.DatasetDict) -> list[str]:
    """Give all texts of one log's examples to train on: what a vocabulary is learned from."""
    table = parts["train"]
    lines = [f" {line}" for line in table["line"]]
    return [str(text) for text in [*table["request"], *lines]]


def _named(log: str, batch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"log": log, **batch()}
