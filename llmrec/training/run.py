"""The parts of a fine-tuning run, put together from a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmrec.data.counts import normalised
from llmrec.errors import DataError
from llmrec.language.adapters import SEEN, AdapterAbout
from llmrec.language.heads import NameReadout, Readout, TitleMemory, name_embeddings, title_keys
from llmrec.language.model import LanguageModel
from llmrec.language.pretrained import add_lora, add_lora_above, save_adapter
from llmrec.metrics import mean_loss
from llmrec.training.batches import Examples, Lines
from llmrec.training.card import write_card
from llmrec.training.config import ConfigError, TrainingConfig
from llmrec.training.dataset import Manifest
from llmrec.training.objective import Reader, Writer
from llmrec.types import FloatArray

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import PreTrainedModel


VALIDATED = 60  # held-out lines that decide which parameters stay


def check_layers(config: TrainingConfig, model: PreTrainedModel) -> None:
    """Refuse a depth that a model has not, and layers to learn lines in that are read through.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    if model.config.is_encoder_decoder:
        if config.depth is not None or config.lines.epochs:
            raise ConfigError(
                "depth and lines.epochs are for decoders: an encoder-decoder is read where its "
                "decoder starts, and learns lines while it learns to read (line_share)"
            )
        return
    n_layers = int(model.config.num_hidden_layers)
    if config.depth is not None and config.depth > n_layers:
        raise ConfigError(f"depth is {config.depth}; the model has {n_layers} layers")
    if not config.lines.epochs:
        return
    first = config.lines.chosen_layers(n_layers)[0]
    if config.depth is None or first < config.depth:
        raise ConfigError(
            f"lines.layers begin with layer {first}, and depth is {config.depth}: lines are "
            "learned above the layers that are read, or with them (line_share)"
        )


def new_writer(config: TrainingConfig, adapted: PeftModel, reader: Reader) -> Writer:
    """Put LoRA into the layers of ``config.lines``, see `check_layers`, and freeze all else."""
    layers = config.lines.chosen_layers(int(reader.model.config.num_hidden_layers))
    learned = dict(reader.named_parameters())
    add_lora_above(adapted, layers, rank=config.lines.rank, seed=config.seed)
    for values in learned.values():  # peft has let those of its adapter be trained again
        values.requires_grad_(False)
    return Writer(reader)


def keep_in_half(writer: Writer) -> None:
    """Round what learned lines to float16: half of the bytes on disk, read as float32 again."""
    for values in writer.parameters():
        if values.requires_grad:
            values.data = values.data.half()


def lines_validation(writer: Writer, held_out: Lines) -> Callable[[], dict[str, float]]:
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


def new_reader(
    config: TrainingConfig, manifest: Manifest
) -> tuple[LanguageModel, PeftModel, Reader]:
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
            f"the examples in {config.pairs} have prompts of {found}, and the config says {asked}: "
            "run finetune/pairs.py again"
        )
    if manifest.validated and config.select == "best":
        raise DataError(
            f"the examples in {config.pairs} hold the validation windows, which then cannot decide "
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
    reader = Reader(
        model.model,
        Readout(table.shape[1], config.readout_rank, config.depth).to(table.device),
        name_embeddings(NameReadout(manifest.labels, model.encode), table),
        end=model.end,
        line_weight=config.line_weight,
        memory=_new_memory(config, manifest, model),
        title_weight=config.titles.weight,
    )
    return model, adapted, reader


def _new_memory(
    config: TrainingConfig, manifest: Manifest, model: LanguageModel
) -> TitleMemory | None:
    if not config.titles.rank or not manifest.titles:
        return None
    table = model.model.get_input_embeddings().weight
    keys = title_keys(model.encode([f" {title}" for title in manifest.titles]))
    memory = TitleMemory(keys, table.shape[1], config.titles.rank, config.titles.dropout)
    counts = torch.tensor(list(manifest.titles.values()), dtype=torch.float32)
    memory.common.data = counts.log() - counts.sum().log()
    memory.to(table.device)
    return memory


def examples(
    config: TrainingConfig,
    manifest: Manifest,
    parts: Mapping[str, datasets.Dataset],
    model: LanguageModel,
) -> tuple[Examples, Examples]:
    """Give the batches to train on, and the windows to validate on."""
    training = Examples(
        parts["train"],
        model,
        batch_positions=config.batch_positions,
        line_share=config.line_share,
        labels=manifest.labels,
        renamed=config.renamed,
        seed=config.seed,
    )
    windows = parts["validation"]
    if len(windows) > config.validation_windows:
        windows = windows.shuffle(seed=config.seed).select(range(config.validation_windows))
    held_out = Examples(windows, model, batch_positions=2 * config.batch_positions)
    return training, held_out


def validation(reader: Reader, held_out: Examples) -> Callable[[], dict[str, float]]:
    """Give a function that reads the held-out windows: log_loss, and skill against counting."""
    log_prior, shares = np.concatenate(held_out.log_prior), np.concatenate(held_out.shares)
    counted = normalised(np.exp(log_prior))

    def validate() -> dict[str, float]:
        weights = normalised(np.exp(log_prior + held_out_scores(reader, held_out)))
        loss, counting = mean_loss(weights, shares), mean_loss(counted, shares)
        return {"log_loss": loss, "counting": counting, "skill": 1 - loss / counting}

    return validate


def held_out_scores(reader: Reader, held_out: Examples) -> FloatArray:
    """(n_windows, n_categories) z of windows, in their order."""
    training = reader.training
    reader.eval()
    found = np.empty((len(held_out.back), len(reader.names)))
    with torch.inference_mode():
        for rows, prompts, slots in held_out.in_order():
            found[rows] = reader.scores(prompts, slots).float().cpu().numpy()
    reader.train(training)
    return found


def save_run(
    folder: Path,
    config: TrainingConfig,
    manifest: Manifest,
    model: LanguageModel,
    adapted: PeftModel,
    reader: Reader,
    metrics: Mapping[str, Any],
) -> Path:
    """Write adapter, readout, adapter.json and the card; give the folder back."""
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(adapted, folder, config.model)
    reader.readout.save(folder)
    if reader.memory is not None:
        reader.memory.save(folder)
    about = AdapterAbout(
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
        config=config.model_dump(mode="json", exclude={"out", "pairs"}),
        metrics={SEEN: dict(metrics)} if manifest.validated else dict(metrics),
        versions={name: metadata.version(name) for name in VERSIONS},
    )
    about.save(folder)
    write_card(folder)
    return folder
