"""The parts of a fine-tuning run, made from a config, and the adapter that it saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmrec.data.counts import normalize_rows
from llmrec.data.files import atomic_folder
from llmrec.data.options import ReadingOptions
from llmrec.data.versions import __version__
from llmrec.errors import DataError
from llmrec.language.adapters import SEEN_METRICS, AdapterMetadata
from llmrec.language.heads import (
    CategoryHead,
    TitleEmbeddings,
    Verbalizer,
    label_embeddings,
    title_hashes,
)
from llmrec.language.model import LanguageModel
from llmrec.metrics import mean_log_loss
from llmrec.training.batches import LineDataset, TimelineBatches
from llmrec.training.card import write_card
from llmrec.training.config import TrainingConfig
from llmrec.training.dataset import DatasetManifest
from llmrec.training.lora import add_lora, add_lora_to_layers, save_adapter
from llmrec.training.objective import LineModel, TimelineModel
from llmrec.training.typed_config import ConfigError
from llmrec.types import FloatArray

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import PreTrainedModel


VALIDATION_LINES = 60  # held-out lines that choose which parameters of the second run are kept
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")  # named in adapter.json


def build_timeline_model(
    config: TrainingConfig, manifest: DatasetManifest
) -> tuple[LanguageModel, PeftModel, TimelineModel]:
    """Load the base model, and add a new adapter, category head and title embeddings to it.

    Raises
    ------
    DataError
        If the examples were written for other prompts than the config's, or hold the windows that
        the config chooses by.
    ConfigError
        If the model lacks layers that the config names, see `check_layers`.
    TrainingError
        If LoRA's targets match nothing.
    """
    _check_examples(config, manifest)
    torch.manual_seed(config.seed)
    model = LanguageModel.load(
        config.model, device=config.device, dtype=config.dtype, quantize=config.quantize
    )
    check_layers(config, model.model)
    _ = model.base_hash  # before an adapter is in it
    n_layers = int(model.model.config.num_hidden_layers)
    adapted = add_lora(
        model.model,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        dropout=config.lora.dropout,
        targets=config.lora.targets,
        layers=config.lora.layer_numbers(config.depth or n_layers),
    )
    if config.gradient_checkpointing:
        adapted.gradient_checkpointing_enable()
        adapted.enable_input_require_grads()
    table = model.model.get_input_embeddings().weight
    timeline_model = TimelineModel(
        model.model,
        CategoryHead(table.shape[1], config.head_rank, config.depth).to(table.device),
        label_embeddings(Verbalizer(manifest.labels, model.encode), table),
        end=model.end_token_id,
        line_weight=config.line_weight,
        title_embeddings=_build_title_embeddings(config, manifest, model),
        title_weight=config.titles.weight,
    )
    return model, adapted, timeline_model


def with_reading_of_examples(config: TrainingConfig, manifest: DatasetManifest) -> TrainingConfig:
    """Give the config the options that the log of its examples was read with.

    Raises
    ------
    DataError
        If the config has other ones.
    """
    stored = ReadingOptions.from_values(manifest.reading)
    for name, wanted in config.reading.to_dict().items():
        if wanted != (made_with := getattr(stored, name)):
            raise DataError(
                f"the examples in {config.examples} were made with {name} {made_with!r}, and the "
                f"config asks for {wanted!r}: leave it out, or run finetune/make_dataset.py again"
            )
    return config.model_copy(update=vars(stored))


def _check_examples(config: TrainingConfig, manifest: DatasetManifest) -> None:
    """Raise DataError unless a run of the config can use the examples."""
    stored, wanted = (manifest.prompt, manifest.budget), (config.template, config.budget)
    if stored != wanted:
        raise DataError(
            f"the examples in {config.examples} have prompts of {stored}, and the config asks for "
            f"{wanted}: run finetune/make_dataset.py again"
        )
    if manifest.validated and config.keep_checkpoint == "best":
        raise DataError(
            f"the examples in {config.examples} hold the validation windows, which then cannot "
            "choose when to stop: write keep_checkpoint: last, or run finetune/make_dataset.py "
            "without --include-validation"
        )


def check_layers(config: TrainingConfig, model: PreTrainedModel) -> None:
    """Refuse layers that a model lacks, and layers for lines below those that score categories.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    if model.config.is_encoder_decoder:
        if config.depth is not None or config.generation.epochs:
            raise ConfigError(
                "depth and generation.epochs are for decoders: an encoder-decoder scores categories"
                " at the start of its decoder, and learns lines in the same run (line_share)"
            )
        return
    n_layers = int(model.config.num_hidden_layers)
    if config.depth is not None and config.depth > n_layers:
        raise ConfigError(f"depth is {config.depth}; the model has {n_layers} layers")
    if not config.generation.epochs:
        return
    first = config.generation.layer_numbers(n_layers)[0]
    if config.depth is None or first < config.depth:
        raise ConfigError(
            f"generation.layers begin with layer {first}, and depth is {config.depth}: lines are "
            "learned above the layers that score categories, or in the same run (line_share)"
        )


def _build_title_embeddings(
    config: TrainingConfig, manifest: DatasetManifest, model: LanguageModel
) -> TitleEmbeddings | None:
    """Make embeddings of the examples' titles that start with how often each was observed."""
    if not config.titles.rank or not manifest.titles:
        return None
    table = model.model.get_input_embeddings().weight
    keys = title_hashes(model.encode([f" {title}" for title in manifest.titles]))
    titles = TitleEmbeddings(keys, table.shape[1], config.titles.rank, config.titles.dropout)
    counts = torch.tensor(list(manifest.titles.values()), dtype=torch.float32)
    titles.bias.data = counts.log() - counts.sum().log()
    titles.to(table.device)
    return titles


def make_batches(
    config: TrainingConfig,
    manifest: DatasetManifest,
    parts: Mapping[str, datasets.Dataset],
    model: LanguageModel,
) -> tuple[TimelineBatches, TimelineBatches]:
    """Give the batches to train on, and those of the validation windows."""
    training = TimelineBatches(
        parts["train"],
        model,
        batch_positions=config.batch_positions,
        line_share=config.line_share,
        labels=manifest.labels,
        label_renaming=config.label_renaming,
        seed=config.seed,
    )
    windows = parts["validation"]
    if len(windows) > config.validation_windows:
        windows = windows.shuffle(seed=config.seed).select(range(config.validation_windows))
    held_out = TimelineBatches(windows, model, batch_positions=2 * config.batch_positions)
    return training, held_out


def make_validation(
    timeline_model: TimelineModel, held_out: TimelineBatches
) -> Callable[[], dict[str, float]]:
    """Give a function that scores held-out windows: log_loss, and skill against counting."""
    log_prior, shares = np.concatenate(held_out.log_prior), np.concatenate(held_out.shares)
    prior = normalize_rows(np.exp(log_prior))

    def validate() -> dict[str, float]:
        weights = normalize_rows(np.exp(log_prior + score_held_out(timeline_model, held_out)))
        loss, counting = mean_log_loss(weights, shares), mean_log_loss(prior, shares)
        return {"log_loss": loss, "counting": counting, "skill": 1 - loss / counting}

    return validate


def score_held_out(timeline_model: TimelineModel, held_out: TimelineBatches) -> FloatArray:
    """(n_windows, n_categories) z of windows, in their order."""
    was_training = timeline_model.training
    timeline_model.eval()
    scores = np.empty((len(held_out.back), len(timeline_model.label_embeddings)))
    with torch.inference_mode():
        for rows, prompts, read_positions in held_out.validation_batches():
            scores[rows] = timeline_model.scores(prompts, read_positions).float().cpu().numpy()
    timeline_model.train(was_training)
    return scores


def add_line_layers(
    config: TrainingConfig, adapted: PeftModel, timeline_model: TimelineModel
) -> LineModel:
    """Add LoRA to the layers of ``config.generation``, see `check_layers`; freeze all else."""
    layers = config.generation.layer_numbers(int(timeline_model.model.config.num_hidden_layers))
    earlier = dict(timeline_model.named_parameters())
    add_lora_to_layers(adapted, layers, rank=config.generation.rank, seed=config.seed)
    for values in earlier.values():  # peft has made those of its adapter trainable again
        values.requires_grad_(False)
    return LineModel(timeline_model)


def line_validation(line_model: LineModel, held_out: LineDataset) -> Callable[[], dict[str, float]]:
    """Give a function that evaluates held-out lines: log_loss a token, and skill.

    Skill is against ``untrained``: call this before the model is trained.
    """
    batches = [batch() for batch in held_out.epoch(0)]
    sizes = [sum(len(line) + 1 for line in batch["lines"]) for batch in batches]

    def mean_loss() -> float:
        losses = [float(line_model(**batch)["loss"]) for batch in batches]
        return float(np.average(losses, weights=sizes))

    line_model.eval()
    with torch.no_grad():
        untrained = mean_loss()

    def validate() -> dict[str, float]:
        loss = mean_loss()
        return {"log_loss": loss, "untrained": untrained, "skill": 1 - loss / untrained}

    return validate


def cast_to_float16(line_model: LineModel) -> None:
    """Round the parameters trained for lines to float16: half of the bytes on disk."""
    for values in line_model.parameters():
        if values.requires_grad:
            values.data = values.data.half()


def save_adapter_run(
    folder: Path,
    config: TrainingConfig,
    manifest: DatasetManifest,
    model: LanguageModel,
    adapted: PeftModel,
    timeline_model: TimelineModel,
    metrics: Mapping[str, Any],
) -> Path:
    """Write adapter, heads, adapter.json and the card as one folder; return it."""
    about = AdapterMetadata(
        base_model=config.model,
        base_fingerprint=model.base_fingerprint,
        labels=manifest.labels,
        categories=manifest.categories,
        prompt=manifest.prompt,
        dataset=manifest.dataset,
        data_fingerprint=manifest.data_fingerprint,
        cutoff=manifest.fitted["before"],  # validation chose when to stop
        period=manifest.period,
        seed=config.seed,
        config=config.model_dump(mode="json", exclude={"out", "examples"}),
        metrics={SEEN_METRICS: dict(metrics)} if manifest.validated else dict(metrics),
        versions={"llmrec": __version__} | {name: metadata.version(name) for name in PACKAGES},
        base_hash=model.base_hash,
    )
    with atomic_folder(folder, keep=()) as new:
        save_adapter(adapted, new, config.model)
        timeline_model.category_head.save(new)
        if timeline_model.title_embeddings is not None:
            timeline_model.title_embeddings.save(new)
        about.save(new)
        write_card(new)
    return folder
