"""All checks of a training that come before its first step: seconds, where training takes hours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmrec.language.codec import codec_for
from llmrec.training.batches import LineDataset, TimelineBatches
from llmrec.training.config import TrainingConfig
from llmrec.training.example_checks import check_examples, check_tables
from llmrec.training.gradient_checks import check_gradients, nonzero_parameters
from llmrec.training.model_checks import (
    check_first_batch,
    check_lengths,
    check_lines,
    check_lora,
    check_parameters,
    check_tokenizer,
    short_lines,
)
from llmrec.training.objective import LineModel, TimelineModel
from llmrec.training.rate_checks import check_batch_size, check_line_rate, check_rates

if TYPE_CHECKING:
    import datasets

    from llmrec.data.dataset import Dataset
    from llmrec.language.model import LanguageModel
    from llmrec.training.dataset import DatasetManifest
    from llmrec.training.pretrain import MultiDatasetModel


def check_data(
    manifest: DatasetManifest,
    parts: Mapping[str, datasets.Dataset],
    dataset: Dataset,
    model: LanguageModel,
) -> None:
    """Check examples against their log, see `check_examples`, and the tokenizer against both.

    Raises
    ------
    DataError, TrainingError
        With what differs.
    """
    check_tokenizer(model, manifest)
    codec = codec_for(dataset, model, template=manifest.prompt, budget=manifest.budget)
    check_examples(manifest, parts, dataset, codec)


def check_scoring_run(
    config: TrainingConfig,
    manifest: DatasetManifest,
    model: LanguageModel,
    timeline_model: TimelineModel,
    batches: TimelineBatches,
) -> None:
    """Check model, batches and rates of the run that trains scores, once it is new.

    Rate and losses of the run for lines that follows are checked, too.

    Raises
    ------
    TrainingError
        With the cause.
    """
    n_layers = int(model.model.config.num_hidden_layers)
    check_parameters(timeline_model, manifest.labels)
    layers = config.lora.layer_numbers(config.depth or n_layers)
    check_lora(timeline_model.model, layers, config.lora.targets)
    check_lengths(model, batches)
    check_batch_size(config, sum(map(len, batches.prompts)))
    n_line_epochs = config.generation.epochs
    check_first_batch(model, timeline_model, batches, lines_follow=bool(n_line_epochs))
    check_rates(timeline_model, config, math.ceil(len(batches.epoch(0)) * config.epochs))
    if n_line_epochs:
        n_batches = math.ceil(len(LineDataset(batches).epoch(0)) * n_line_epochs)
        check_line_rate(model.model, config, n_batches)


def check_line_run(
    config: TrainingConfig,
    model: LanguageModel,
    line_model: LineModel,
    lines: LineDataset,
) -> None:
    """Check model and batches of the run that trains lines alone, once it is new.

    Raises
    ------
    TrainingError
        With the cause.
    """
    timeline_model = line_model.timeline_model
    layers = config.generation.layer_numbers(int(model.model.config.num_hidden_layers))
    check_lora(timeline_model.model, layers, config.lora.targets)
    line_model.eval()
    with nonzero_parameters(line_model):
        check_lines(model, timeline_model, *short_lines(lines))
        check_gradients(line_model, lines.epoch(0)[0]())


def check_pretraining(
    config: TrainingConfig,
    examples: Mapping[str, tuple[DatasetManifest, Mapping[str, datasets.Dataset]]],
    model: LanguageModel,
    multi_dataset_model: MultiDatasetModel,
    training: Mapping[str, TimelineBatches],
) -> None:
    """Check examples, model, batches and rates of a training on several logs.

    Raises
    ------
    DataError, TrainingError
        With the cause.
    """
    for log, (manifest, parts) in examples.items():
        check_tokenizer(model, manifest)
        check_tables(manifest, parts)
        check_lengths(model, training[log])
        check_parameters(multi_dataset_model.select(log), manifest.labels)
    first = next(iter(training))
    check_first_batch(model, multi_dataset_model.select(first), training[first])
    n_positions = sum(len(prompt) for batches in training.values() for prompt in batches.prompts)
    check_batch_size(config, n_positions)
    n_batches = sum(len(batches.epoch(0)) for batches in training.values())
    check_rates(multi_dataset_model, config, math.ceil(n_batches * config.epochs))
