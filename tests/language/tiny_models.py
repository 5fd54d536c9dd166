"""Models of a few thousand random weights with real tokenizers, trained in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    ViTConfig,
    ViTModel,
)

from llmrec.language.adapters import AdapterMetadata

LABELS = ("Drama", "Drama 5", "Comedy", "Sci-Fi & Fantasy", "Children's/Café", "Mr. Bean (1990)")
PHRASES = ("is rising", "is fading", "is new")
ABOUT = AdapterMetadata(
    base_model="tiny",
    base_fingerprint="0123456789abcdef",
    labels=LABELS,
    categories=tuple(label.upper() for label in LABELS),
    prompt="forecast-v2",
    dataset="ml-100k",
    data_fingerprint="fedcba9876543210",
    cutoff="1998-03-01",
    period="10 events",
    seed=0,
    config={"rate": 1e-3, "lora": {"rank": 2, "targets": ["q_proj"]}},
    metrics={"log_loss": {"value": 1.9, "low": 1.8, "high": 2.0}},
    versions={"torch": "2.13.0"},
)
SENTENCES = [
    f"To 3 Jan 1998: {label} 31%, {label} 22%, other 47%: {label} {phrase}."
    for label in LABELS
    for phrase in PHRASES
]
LETTERS = sorted(set("".join(SENTENCES)) - {" "} | set("0123456789<>|_/bcdefghijklmnopqrstuvwxyz"))


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose padding token is its end token, like SmolLM2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


def unigram_tokenizer() -> T5Tokenizer:
    """SentencePiece-like Unigram with "</s>" among its pieces and sentinels, like T5's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=LETTERS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    return T5Tokenizer(vocab=[tuple(piece) for piece in pieces], extra_ids=4, model_max_length=256)


def save_llama(folder: Path, **changes: Any) -> Path:
    """Save a decoder of two layers; ``changes`` go into its config."""
    tokenizer = byte_level_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": None}
    # Weights large enough that tokens differ: a model of tiny weights repeats one token.
    weights = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    config = LlamaConfig(**{**weights, **sizes, **heads, **ends, **changes})
    return _save(LlamaForCausalLM, config, tokenizer, folder)


def save_t5(folder: Path, **changes: Any) -> Path:
    """Save an encoder-decoder of two layers; ``changes`` go into its config."""
    tokenizer = unigram_tokenizer()
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = T5Config(
        **{"vocab_size": len(tokenizer) + 5, "decoder_start_token_id": 0, **sizes, **changes}
    )
    return _save(T5ForConditionalGeneration, config, tokenizer, folder)


def save_bert(folder: Path, **changes: Any) -> Path:
    """Save an encoder of two layers; ``changes`` go into its config."""
    tokenizer = byte_level_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "max_position_embeddings": 256}
    weights = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    config = BertConfig(**{**weights, **sizes, **heads, **changes})
    return _save(BertModel, config, tokenizer, folder)


IMAGE_SIZES: dict[str, Any] = {"image_size": 16, "patch_size": 8}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


def save_vit(folder: Path, *, pooling: bool = True) -> Path:
    """Save a model of images of 16 x 16 pixels, with or without a pooling layer."""
    torch.manual_seed(0)
    config = ViTConfig(**SMALL, **IMAGE_SIZES)
    ViTModel(config, add_pooling_layer=pooling).save_pretrained(folder)
    return _save_image_processor(folder)


def save_clip(folder: Path) -> Path:
    """Save a model of images and texts, which compares both in 24 dimensions."""
    torch.manual_seed(0)
    texts = {**SMALL, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(text_config=texts, vision_config=SMALL | IMAGE_SIZES, projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    return _save_image_processor(folder)


def _save_image_processor(folder: Path) -> Path:
    values = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def _save(kind: Any, config: Any, tokenizer: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
