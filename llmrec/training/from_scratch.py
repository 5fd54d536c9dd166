"""A small T5 or decoder that starts from nothing: its vocabulary made of the logs' own texts."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
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

from llmrec.language.plaintext import BAG, END_OF_BAG, PART

SPECIAL = ("<pad>", "</s>", "<unk>")
PAD, END, UNKNOWN = range(3)
CONTEXT = 512  # positions; T5 knows distances only, so this is what a prompt may cost
DECODER_CONTEXT = 1024  # a decoder writes its line behind the prompt
RARE = -1_000.0  # log-probability of a byte: below that of any text spelled in letters
_ALPHABET = string.ascii_letters + string.digits + string.punctuation + "▁"
_MARKS = re.compile(f"[{BAG}{END_OF_BAG}{PART}\n]")
C = TypeVar("C", bound=PreTrainedConfig)
M = TypeVar("M", bound=PreTrainedModel)


def new_t5(
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
        Most pieces it may have, bytes included (see `new_tokenizer`).
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
    tokenizer = new_tokenizer(texts, vocab_size)
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


def new_decoder(
    texts: Iterable[str],
    *,
    vocab_size: int = 4_000,
    d_model: int = 192,
    layers: int = 4,
    heads: int = 4,
    d_ff: int = 512,
    seed: int = 0,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Make an untrained decoder with the layers of Llama, as `new_t5` makes an encoder-decoder.

    Raises
    ------
    ValueError
        If the width cannot be divided among the heads, or the vocabulary is too small.
    """
    _check_heads(d_model, heads)
    tokenizer = new_tokenizer(texts, vocab_size, end="")
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


NEW = {"new": new_t5, "new-decoder": new_decoder}  # what a config may start from instead of a model


def _check_heads(d_model: int, heads: int) -> None:
    if d_model % heads:
        raise ValueError(f"d_model {d_model} is not divisible by {heads} heads")


def _untrained(kind: Callable[[C], M], config: C, seed: int) -> M:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def new_tokenizer(
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
    pieces += [(byte, RARE) for byte in spelling]
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
