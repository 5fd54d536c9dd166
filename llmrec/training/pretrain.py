"""Small T5s and decoders with random parameters, and training on several logs at once."""

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

from llmrec.data.splits import sample_windows, split_timelines, with_catalog_of_training
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.heads import CategoryHead, Verbalizer, label_embeddings
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import POOL_END, POOL_SEPARATOR, POOL_START
from llmrec.training.batches import TimelineBatches
from llmrec.training.config import TrainingConfig
from llmrec.training.dataset import MANIFEST_FILE, DatasetManifest, load_examples, save_examples
from llmrec.training.objective import TimelineModel
from llmrec.training.run import make_validation

if TYPE_CHECKING:
    import datasets


SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
PAD, END, UNKNOWN = range(3)
T5_CONTEXT = 512  # positions; T5 has no limit of its own, as it knows distances only
DECODER_CONTEXT = 1024  # a decoder generates its line behind the prompt
BYTE_LOGPROB = -1_000.0  # log-probability of a byte: below that of any text spelled in letters
VALIDATION_WINDOWS = 400  # validation windows of a log, drawn at random
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
    """Make an untrained encoder-decoder, and a tokenizer trained on the texts of its logs.

    It has the gated feed-forward layers of T5 1.1 and the tied embeddings of T5. Saved with
    ``save_pretrained`` into one folder, both load like any model.

    Parameters
    ----------
    texts
        Prompts, requests and lines to train the tokenizer on.
    vocab_size
        Maximal size of the vocabulary, bytes included (see `train_tokenizer`).
    d_model, layers, heads, d_ff
        Width, layers of the encoder and of the decoder, attention heads, inner width.
    dropout
        In training.
    seed
        Of the random parameters.

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
    return _build_untrained(T5ForConditionalGeneration, config, seed), tokenizer


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
    return _build_untrained(LlamaForCausalLM, config, seed), tokenizer


# What a config may name instead of a model.
NEW_MODELS = {"new": build_t5, "new-decoder": build_decoder}


def _check_heads(d_model: int, heads: int) -> None:
    if d_model % heads:
        raise ValueError(f"d_model {d_model} is not divisible by {heads} heads")


def _build_untrained(model_class: Callable[[C], M], config: C, seed: int) -> M:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, end: str = SPECIAL_TOKENS[END]
) -> PreTrainedTokenizerFast:
    """Train a Unigram tokenizer (Kudo 2018, arXiv 1804.10959) that can encode every text.

    What no piece covers is encoded as UTF-8 bytes. Spaces stay as they are, so decoding gives the
    encoded text. ``end`` is the special token after an encoded text, if there is one.

    Raises
    ------
    ValueError
        If ``vocab_size`` has no room for special tokens, letters and bytes.
    """
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    n_pieces = vocab_size - len(byte_pieces)
    if n_pieces < len(SPECIAL_TOKENS) + 2 * len(_ALPHABET):
        raise ValueError(f"vocab_size {vocab_size} is too small for letters, bytes and some words")
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=n_pieces,
        special_tokens=list(SPECIAL_TOKENS),
        unk_token=SPECIAL_TOKENS[UNKNOWN],
        initial_alphabet=list(_ALPHABET),
        show_progress=False,
    )
    unigram.train_from_iterator((part for text in texts for part in _MARKS.split(text)), trainer)
    pieces = [tuple(piece) for piece in json.loads(unigram.to_str())["model"]["vocab"]]
    pieces += [(byte, BYTE_LOGPROB) for byte in byte_pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=UNKNOWN, byte_fallback=True))
    tokenizer.pre_tokenizer = unigram.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}".strip(), special_tokens=[(SPECIAL_TOKENS[END], END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[PAD],
        eos_token=SPECIAL_TOKENS[END],
        unk_token=SPECIAL_TOKENS[UNKNOWN],
        model_max_length=T5_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


class MultiDatasetModel(nn.Module):
    """A `TimelineModel` with the labels of the log that a batch comes from.

    All of the model may be trained: labels are embedded by its current table of embeddings.

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
        # Set before `timeline_model`, so that checkpoints name parameters as those of one log do.
        self.model, self.category_head = model.model, category_head
        self.verbalizers = {log: Verbalizer(texts, model.encode) for log, texts in labels.items()}
        self.timeline_model = TimelineModel(
            model.model,
            category_head,
            self._embed_labels(next(iter(labels))),
            end=model.end_token_id,
            line_weight=line_weight,
        )

    def select(self, log: str) -> TimelineModel:
        """Give the timeline model, with the labels of a log."""
        self.timeline_model.label_embeddings = self._embed_labels(log)
        return self.timeline_model

    def forward(self, log: str, **batch: Any) -> dict[str, Tensor]:
        """Give the loss of one log's batch, see `TimelineModel`."""
        outputs: dict[str, Tensor] = self.select(log)(**batch)
        return outputs

    def _embed_labels(self, log: str) -> Tensor:
        return label_embeddings(self.verbalizers[log], self.model.get_input_embeddings().weight)


class MultiDatasetBatches:
    """The batches of several logs in one random order; each holds the name of its log."""

    def __init__(self, logs: Mapping[str, TimelineBatches], seed: int = 0) -> None:
        self.logs, self.seed = logs, seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        batches = [
            partial(_add_log_name, log, batch)
            for log, timelines in self.logs.items()
            for batch in timelines.epoch(n)
        ]
        order = np.random.default_rng((self.seed, n)).permutation(len(batches))
        return [batches[at] for at in order]


def _add_log_name(log: str, batch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"log": log, **batch()}


def multi_dataset_validation(
    model: MultiDatasetModel, held_out: Mapping[str, TimelineBatches]
) -> Callable[[], dict[str, float]]:
    """Give a function that validates on each log (``log_loss ml-100k``) and takes the means."""
    functions = {log: make_validation(model.timeline_model, one) for log, one in held_out.items()}

    def validate() -> dict[str, float]:
        by_log = {}
        for log, function in functions.items():
            model.select(log)
            by_log[log] = function()
        each = {f"{name} {log}": v for log, values in by_log.items() for name, v in values.items()}
        names = next(iter(by_log.values()))
        return each | {
            name: float(np.mean([values[name] for values in by_log.values()])) for name in names
        }

    return validate


def examples_for(config: TrainingConfig, log: str) -> tuple[DatasetManifest, datasets.DatasetDict]:
    """Read a log's examples from their folder in ``config.examples``; write them if there are none.

    They hold nothing of the newest part of the log, nor of the test targets. The budget of a prompt
    is counted in letters, not in a model's tokens: the tokenizer may still have to be trained on
    them.

    Raises
    ------
    DataError
        If the folder holds examples with other prompts.
    """
    folder = Path(config.examples) / re.sub(r"[^\w.-]+", "-", log)
    if not (folder / MANIFEST_FILE).exists():
        _write_examples(folder, config, log)
    manifest, parts = load_examples(folder)
    stored = manifest.prompt, manifest.budget, dict(manifest.reading)
    wanted = config.template, config.budget, config.reading.to_dict()
    if stored != wanted:
        raise DataError(
            f"the examples in {folder} have prompts of {stored}, and the config asks for {wanted} "
            "(prompt version, budget, and how the log is read): "
            "delete the folder, or choose another one"
        )
    return manifest, parts


def _write_examples(folder: Path, config: TrainingConfig, log: str) -> None:
    dataset = with_catalog_of_training(config.reading.load(log))
    people, held_out = split_timelines(dataset)
    codec = Codec(
        dataset.catalog.categories,
        person=dataset.person,
        noun=dataset.noun,
        template=config.template,
        budget=config.budget,
    )
    prior = DecayedDirichlet().fit(held_out)
    validation = sample_windows(held_out, VALIDATION_WINDOWS)
    seed, reading = config.seed, config.reading
    save_examples(folder, dataset, codec, prior, people, validation, seed=seed, reading=reading)


def training_texts(parts: datasets.DatasetDict) -> list[str]:
    """Give the texts of one log's training examples, to train a tokenizer on."""
    table = parts["train"]
    lines = [f" {line}" for line in table["line"]]
    return [str(text) for text in [*table["request"], *lines]]
