"""The parts of a fine-tuning run, put together from a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmrec.data.counts import normalize_rows
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
from llmrec.language.pretrained import add_lora, add_lora_to_layers, save_adapter
from llmrec.metrics import mean_log_loss
from llmrec.training.batches import LineDataset, TimelineBatches
from llmrec.training.card import write_card
from llmrec.training.config import ConfigError, TrainingConfig
from llmrec.training.dataset import DatasetManifest
from llmrec.training.objective import LineModel, TimelineModel
from llmrec.types import FloatArray
from llmrec.versions import __version__

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import PreTrainedModel


VALIDATION_LINES = 60  # held-out lines that decide which parameters stay


def check_layers(config: TrainingConfig, model: PreTrainedModel) -> None:
    """Refuse a depth that a model has not, and layers to learn lines in that are read through.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    if model.config.is_encoder_decoder:
        if config.depth is not None or config.generation.epochs:
            raise ConfigError(
                "depth and lines.epochs are for decoders: an encoder-decoder is read where its "
                "decoder starts, and learns lines while it learns to read (line_share)"
            )
        return
    n_layers = int(model.config.num_hidden_layers)
    if config.depth is not None and config.depth > n_layers:
        raise ConfigError(f"depth is {config.depth}; the model has {n_layers} layers")
    if not config.generation.epochs:
        return
    first = config.generation.chosen_layers(n_layers)[0]
    if config.depth is None or first < config.depth:
        raise ConfigError(
            f"lines.layers begin with layer {first}, and depth is {config.depth}: lines are "
            "learned above the layers that are read, or with them (line_share)"
        )


def add_line_layers(config: TrainingConfig, adapted: PeftModel, reader: TimelineModel) -> LineModel:
    """Put LoRA into the layers of ``config.lines``, see `check_layers`, and freeze all else."""
    layers = config.generation.chosen_layers(int(reader.model.config.num_hidden_layers))
    learned = dict(reader.named_parameters())
    add_lora_to_layers(adapted, layers, rank=config.generation.rank, seed=config.seed)
    for values in learned.values():  # peft has let those of its adapter be trained again
        values.requires_grad_(False)
    return LineModel(reader)


def cast_to_float16(writer: LineModel) -> None:
    """Round what learned lines to float16: half of the bytes on disk, read as float32 again."""
    for values in writer.parameters():
        if values.requires_grad:
            values.data = values.data.half()


def line_validation(writer: LineModel, held_out: LineDataset) -> Callable[[], dict[str, float]]:
    """Give a function that judges held-out lines: log_loss a token, and skill.

    Skill is against ``untrained``: the writer must be a new one when this is called.
    """
    batches = [batch() for batch in held_out.epoch(0)]
    sizes = [sum(len(line) + 1 for line in batch["lines"]) for batch in batches]

    def judged() -> float:
        losses = [float(writer(**batch)["loss"]) for batch in batches]
        return float(np.average(losses, weights=sizes))

    writer.eval()
    with torch.no_grad():
        untrained = judged()

    def validate() -> dict[str, float]:
        loss = judged()
        return {"log_loss": loss, "untrained": untrained, "skill": 1 - loss / untrained}

    return validate


VERSIONS = ("torch", "transformers", "peft", "accelerate", "datasets")


def build_timeline_model(
    config: TrainingConfig, manifest: DatasetManifest
) -> tuple[LanguageModel, PeftModel, TimelineModel]:
    """Load the base model, put a new adapter into it, and read it through a new readout.

    With ``config.titles`` there is a new memory of the titles to learn from, too.

    Raises
    ------
    DataError
        If the examples were written for other prompts than the config says, or hold what the
        config selects by.
    ConfigError
        If the model has not the layers that the config speaks of, see `check_layers`.
    TrainingError
        If LoRA's targets match nothing.
    """
    found, asked = (manifest.prompt, manifest.budget), (config.template, config.budget)
    if found != asked:
        raise DataError(
            f"the examples in {config.examples} have prompts of {found}, and the "
            f"config says {asked}: "
            "run finetune/pairs.py again"
        )
    if manifest.validated and config.keep_checkpoint == "best":
        raise DataError(
            f"the examples in {config.examples} hold the validation windows, which then "
            f"cannot decide "
            "when to stop: write select: last, or run finetune/pairs.py without --validated"
        )
    torch.manual_seed(config.seed)
    model = LanguageModel.load(
        config.model, device=config.device, dtype=config.dtype, quantize=config.quantize
    )
    check_layers(config, model.model)
    n_layers = int(model.model.config.num_hidden_layers)
    adapted = add_lora(
        model.model,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        dropout=config.lora.dropout,
        targets=config.lora.targets,
        layers=config.lora.chosen_layers(config.depth or n_layers),
    )
    if config.gradient_checkpointing:
        adapted.gradient_checkpointing_enable()
        adapted.enable_input_require_grads()
    table = model.model.get_input_embeddings().weight
    reader = TimelineModel(
        model.model,
        CategoryHead(table.shape[1], config.head_rank, config.depth).to(table.device),
        label_embeddings(Verbalizer(manifest.labels, model.encode), table),
        end=model.end,
        line_weight=config.line_weight,
        title_embeddings=_new_memory(config, manifest, model),
        title_weight=config.titles.weight,
    )
    return model, adapted, reader


def _new_memory(
    config: TrainingConfig, manifest: DatasetManifest, model: LanguageModel
) -> TitleEmbeddings | None:
    if not config.titles.rank or not manifest.titles:
        return None
    table = model.model.get_input_embeddings().weight
    keys = title_hashes(model.encode([f" {title}" for title in manifest.titles]))
    memory = TitleEmbeddings(keys, table.shape[1], config.titles.rank, config.titles.dropout)
    counts = torch.tensor(list(manifest.titles.values()), dtype=torch.float32)
    memory.bias.data = counts.log() - counts.sum().log()
    memory.to(table.device)
    return memory


def make_batches(
    config: TrainingConfig,
    manifest: DatasetManifest,
    parts: Mapping[str, datasets.Dataset],
    model: LanguageModel,
) -> tuple[TimelineBatches, TimelineBatches]:
    """Give the batches to train on, and the windows to validate on."""
    training = TimelineBatches(
        parts["train"],
        model,
        batch_positions=config.batch_positions,
        line_share=config.line_share,
        labels=manifest.labels,
        renamed=config.label_renaming,
        seed=config.seed,
    )
    windows = parts["validation"]
    if len(windows) > config.validation_windows:
        windows = windows.shuffle(seed=config.seed).select(range(config.validation_windows))
    held_out = TimelineBatches(windows, model, batch_positions=2 * config.batch_positions)
    return training, held_out


def make_validation(
    reader: TimelineModel, held_out: TimelineBatches
) -> Callable[[], dict[str, float]]:
    """Give a function that reads the held-out windows: log_loss, and skill against counting."""
    log_prior, shares = np.concatenate(held_out.log_prior), np.concatenate(held_out.shares)
    counted = normalize_rows(np.exp(log_prior))

    def validate() -> dict[str, float]:
        weights = normalize_rows(np.exp(log_prior + score_held_out(reader, held_out)))
        loss, counting = mean_log_loss(weights, shares), mean_log_loss(counted, shares)
        return {"log_loss": loss, "counting": counting, "skill": 1 - loss / counting}

    return validate


def score_held_out(reader: TimelineModel, held_out: TimelineBatches) -> FloatArray:
    """(n_windows, n_categories) z of windows, in their order."""
    training = reader.training
    reader.eval()
    found = np.empty((len(held_out.back), len(reader.names)))
    with torch.inference_mode():
        for rows, prompts, slots in held_out.validation_batches():
            found[rows] = reader.scores(prompts, slots).float().cpu().numpy()
    reader.train(training)
    return found


def save_adapter_run(
    folder: Path,
    config: TrainingConfig,
    manifest: DatasetManifest,
    model: LanguageModel,
    adapted: PeftModel,
    reader: TimelineModel,
    metrics: Mapping[str, Any],
) -> Path:
    """Write adapter, readout, adapter.json and the card; give the folder back."""
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(adapted, folder, config.model)
    reader.category_head.save(folder)
    if reader.title_embeddings is not None:
        reader.title_embeddings.save(folder)
    about = AdapterMetadata(
        base_model=config.model,
        base_fingerprint=model.base_fingerprint,
        labels=manifest.labels,
        categories=manifest.categories,
        prompt=manifest.prompt,
        dataset=manifest.dataset,
        data_fingerprint=manifest.data_fingerprint,
        cutoff=manifest.fitted["before"],  # validation decided when to stop
        period=manifest.period,
        seed=config.seed,
        config=config.model_dump(mode="json", exclude={"out", "examples"}),
        metrics={SEEN_METRICS: dict(metrics)} if manifest.validated else dict(metrics),
        versions={"llmrec": __version__} | {name: metadata.version(name) for name in VERSIONS},
    )
    about.save(folder)
    write_card(folder)
    return folder
