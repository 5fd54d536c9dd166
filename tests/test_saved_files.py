"""What version 0.1.0 saved opens, and gives the numbers, lists and texts that it gave then.

The files in ``saved/v0_1`` were written by that version and are never written again; its README
says what each is. Everything that has to know how a file is opened stands in the first part of
this module: where code is renamed, that part follows, and the numbers stay as they are.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from llmrec import DataError, Dataset, Edit, Forecast, InterestEngine, load_dataset
from llmrec.data import make_windows
from llmrec.data.periods import Window
from llmrec.data.versions import __version__, rename_model
from llmrec.data.windows import holdout_cutoff
from llmrec.engine_folder import bundled_engine
from llmrec.errors import LlmrecError, ModelLoadError
from llmrec.evaluation.forecast_store import load_forecasts, save_forecasts
from llmrec.evaluation.track_record import score_forecasts, summarize_track_record
from llmrec.forecasters.network import NetworkForecaster
from llmrec.forecasters.neural import GRU, RRN, VAE, CellMLP, Transformer
from llmrec.forecasters.sequential import NextItemModel
from llmrec.forecasters.sequential_nets import build_net
from llmrec.language.adapters import AdapterMetadata, adapter_hash
from llmrec.language.codec import codec_for
from llmrec.language.heads import Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.training.batches import LineDataset
from llmrec.training.config import TrainingConfig, generation_config, load_config, scoring_config
from llmrec.training.dataset import load_examples
from llmrec.training.loop import TrainingHistory, train
from llmrec.training.pretrain import MultiDatasetModel
from llmrec.training.run import (
    VALIDATION_LINES,
    add_line_layers,
    build_timeline_model,
    line_validation,
    make_batches,
    make_validation,
)
from llmrec.training.trainer import BatchStream, BatchTrainer, RunState
from tests.real_parts import needs_real_parts

SAVED = Path(__file__).parent / "saved" / "v0_1"
STORED_NETWORKS = {net.__name__: net for net in (CellMLP, VAE, RRN)}
NETWORKS = STORED_NETWORKS | {net.__name__: net for net in (GRU, Transformer)}  # these are large

# ------------------------------------------------------------------------------------------------
# How today's code opens what is saved, and asks it. Paths are relative to the saved folder.
# ------------------------------------------------------------------------------------------------


def open_engine(folder: Path | str, data: Dataset | str) -> InterestEngine:
    return InterestEngine.from_pretrained(str(folder), data=data, describe=False, device="cpu")


def open_bundled(name: str) -> InterestEngine:
    """Open the engine that 0.1 came with on its log as 0.1 read it: with its verb and its titles.

    Its adapter is still the one that the package has.
    """
    dataset = with_double_titles(load_dataset(name, verb="taken"))
    with TemporaryDirectory() as folder:
        shutil.copytree(SAVED / "bundled" / name, folder, dirs_exist_ok=True)
        shutil.copytree(bundled_engine(name) / "adapter", Path(folder) / "adapter")
        return open_engine(folder, dataset)


def with_double_titles(dataset: Dataset) -> Dataset:
    """Give the titles that 0.1 made of an item called like its category: Butter (Butter)."""
    if dataset.name != "completejourney":
        return dataset
    catalog = dataset.catalog
    shared = {title.split(" (")[0] for title in catalog.titles if " (" in title}
    shared.add("Hair Care Products")  # the other one was never bought
    titles = tuple(
        f"{title} ({catalog.categories_of(item)[0]})"
        if title in shared and title.lower() == catalog.categories_of(item)[0].lower()
        else title
        for item, title in enumerate(catalog.titles)
    )
    same = replace(catalog, titles=titles)
    return replace(dataset, catalog=same, log=replace(dataset.log, item_ids=same.item_ids))


def let_the_model_write(engine: InterestEngine, writes: bool) -> None:
    engine.describe = writes


def open_log() -> Dataset:
    return load_dataset("log.parquet")


def forecast(engine: InterestEngine, user: str) -> Forecast:
    return engine.forecast(user)


def recommend(engine: InterestEngine, user: str, k: int, **options: Any) -> Sequence[Any]:
    calibrate = options.pop("calibrate", 0.0)
    return engine.session(user, **options).recommend(k, calibrate=calibrate)


def reworded_reasons(engine: InterestEngine, user: str, k: int, told: Forecast) -> Sequence[Any]:
    return engine.session(user, forecast=told).recommend(k, model_words=True)


def explain(engine: InterestEngine, user: str, item: str, told: Forecast) -> Any:
    return engine.session(user, forecast=told).explain(item)


def why_not(engine: InterestEngine, user: str, item: str, told: Forecast) -> Any:
    return engine.session(user, forecast=told).why_not(item)


def effect(engine: InterestEngine, user: str, edits: Sequence[Edit], told: Forecast) -> Any:
    return engine.session(user, edits=edits, forecast=told).effect()


def effect_holds(outcome: Any) -> bool:
    return bool(outcome.holds)


def reworded_text(explanation: Any) -> tuple[str, str]:
    """Give a reason as the model worded it, and why it is not shown; one of them is ""."""
    return explanation.model_text, explanation.rejection


def windows_at(dataset: Dataset, cutoff: np.datetime64) -> list[Window]:
    return make_windows(dataset.log, dataset.catalog, dataset.period, cutoff)


def adapter_fields(folder: Path) -> dict[str, Any]:
    fields = asdict(AdapterMetadata.load(folder))
    assert not fields.pop("files")  # of 0.5 and later
    assert not fields.pop("base_hash")
    return fields | {"hash": adapter_hash(folder)}


def category_scores(dataset: Dataset, windows: Sequence[Window], adapter: Path | None) -> Any:
    """Give the scores that the base model gives categories, alone or with the adapter's head."""
    model, prompts, labels = _model_and_prompts(dataset, windows, adapter)
    return model.score_categories(prompts, Verbalizer(labels, model.encode))


def title_probabilities(dataset: Dataset, windows: Sequence[Window], adapter: Path) -> Any:
    model, prompts, _ = _model_and_prompts(dataset, windows, adapter)
    return model.title_probabilities(prompts)


def fingerprints(adapter: Path) -> list[str]:
    model = LanguageModel.load("base", adapter=adapter, device="cpu")
    return [model.base_fingerprint, model.fingerprint]


def _model_and_prompts(
    dataset: Dataset, windows: Sequence[Window], adapter: Path | None
) -> tuple[LanguageModel, list[str], Sequence[str]]:
    model = LanguageModel.load("base", adapter=adapter, device="cpu")
    codec = codec_for(dataset, model, template="forecast-v3", budget=130)
    return model, [codec.prompt(window.history) for window in windows], codec.labels


def network_weights(name: str, windows: Sequence[Window]) -> Any:
    found = NetworkForecaster.load(Path("networks") / name, STORED_NETWORKS[name])
    return found.category_weights([window.history for window in windows])


def network_forecasts(name: str, windows: Sequence[Window]) -> list[Forecast]:
    found = NetworkForecaster.load(Path("networks") / name, STORED_NETWORKS[name])
    return found.forecast([window.history for window in windows])


def parameter_names() -> dict[str, list[str]]:
    """Give what the parameters of every net are called in its file, those of no stored one too."""
    nets = {name: net(5, 3) for name, net in NETWORKS.items()}
    nets |= {name: build_net(name, 5) for name in ("SASRec", "BERT4Rec", "GRU4Rec")}
    return {name: sorted(net.state_dict()) for name, net in nets.items()}


def next_item_weights(windows: Sequence[Window]) -> Any:
    return NextItemModel.load(Path("networks/GRU4Rec")).category_weights(
        [w.history for w in windows]
    )


def next_item_scores(windows: Sequence[Window]) -> Any:
    return NextItemModel.load(Path("networks/GRU4Rec")).scores(
        [window.history for window in windows]
    )


def stored_forecasts() -> list[dict[str, Any]]:
    """Give what each row of the store says, under the names of its columns."""
    return [
        {
            "receipt": one.receipt,
            "user_id": one.user_id,
            "log": one.log,
            "period": str(one.period),
            "cutoff": str(one.cutoff),
            "seen": one.seen,
            "log_end": str(one.log_end),
            "made": str(one.made),
            "categories": one.categories,
            "in_advance": one.in_advance,
            "model": one.forecast.source.model,
            **forecast_fields(one.forecast),
        }
        for one in load_forecasts(Path("forecasts"))
    ]


def forecast_scores(dataset: Dataset) -> tuple[Any, Any]:
    """Give the tables of scores: one row a forecast, and one a model and metric."""
    scores = score_forecasts(load_forecasts(Path("forecasts")), dataset)
    return scores, summarize_track_record(scores)


def source_fields(forecast: Forecast) -> dict[str, Any]:
    """Give the source of a forecast in the words that version 0.1 had for it."""
    why = forecast.source.why
    for today, then in (
        ("category scores weighted by", "reading trusted with"),
        ("category scores gained", "reading gained"),
        ("titles weighted by", "titles trusted with"),
    ):
        why = why.replace(today, then)
    return asdict(forecast.source) | {"why": why}


def by_model(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give rows with today's name of each model, in the order of these names."""
    named = [row | {"model": rename_model(row["model"])} for row in rows]
    return sorted(named, key=lambda row: row["model"])  # the rest is in order, and stays so


def of_0_1(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out coverage, of counts now and then of shares, and what 0.1 did not measure."""
    other = ("coverage", "said")
    return [
        {name: value for name, value in row.items() if not name.startswith(other)}
        for row in rows
        if not str(row.get("metric", "")).startswith(other)
    ]


def config_fields(config: TrainingConfig) -> dict[str, Any]:
    """Give the fields of a config under the names that version 0.1 had for them."""
    return {
        "data": config.data,
        "pairs": config.examples,
        "model": config.model,
        "out": config.out,
        "seed": config.seed,
        "template": config.template,
        "budget": config.budget,
        "epochs": config.epochs,
        "minutes": config.max_minutes,
        "batch_positions": config.batch_positions,
        "gradient_accumulation": config.gradient_accumulation,
        "rate": config.learning_rate,
        "readout_rate": config.head_learning_rate,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "lora": {
            "rank": config.lora.rank,
            "alpha": config.lora.alpha,
            "dropout": config.lora.dropout,
            "targets": config.lora.targets,
            "layers": config.lora.layers,
        },
        "depth": config.depth,
        "readout_rank": config.head_rank,
        "titles": {
            "rank": config.titles.rank,
            "dropout": config.titles.dropout,
            "rate": config.titles.rate,
            "weight": config.titles.weight,
        },
        "line_weight": config.line_weight,
        "line_share": config.line_share,
        "lines": {
            "epochs": config.generation.epochs,
            "rate": config.generation.rate,
            "rank": config.generation.rank,
            "layers": config.generation.layers,
        },
        "renamed": config.label_renaming,
        "validation_windows": config.validation_windows,
        "select": config.keep_checkpoint,
        "evaluate_every": config.evaluate_every,
        "save_every": config.save_every,
        "keep": config.keep,
        "patience": config.patience,
        "calibration_windows": config.calibration_windows,
        "device": config.device,
        "dtype": config.dtype,
        "quantize": config.quantize,
        "gradient_checkpointing": config.gradient_checkpointing,
        "report_to": config.report_to,
    }


def run_parts() -> Any:
    """Put the saved run together: its config, module, validation and batches, as lora.py does."""
    config = load_config("run.yaml")
    manifest, parts = load_examples(Path(config.examples))
    model, adapted, reader = build_timeline_model(config, manifest)
    training, held_out = make_batches(config, manifest, parts, model)
    return config, manifest, model, adapted, reader, training, held_out


def continue_reading(parts: Any, folder: Path) -> TrainingHistory:
    config, _, _, _, reader, training, held_out = parts
    return train(
        reader, training, make_validation(reader, held_out), scoring_config(config), folder
    )


def continue_lines(parts: Any, folder: Path) -> TrainingHistory:
    """Go on with the second run, that of lines; the first one must be done."""
    config, _, _, adapted, reader, training, held_out = parts
    writer = add_line_layers(config, adapted, reader)
    judged = line_validation(writer, LineDataset(held_out, VALIDATION_LINES))
    return train(writer, LineDataset(training), judged, generation_config(config), folder)


def heads(module: Any) -> dict[str, nn.Module]:
    """Give the parts of a module that have a learning rate of their own, by the name of it."""
    found = {
        "readout_rate": module.category_head,
        "titles.rate": getattr(module, "title_embeddings", None),
    }
    return {name: head for name, head in found.items() if head is not None}


def head_rates(config: TrainingConfig) -> dict[str, float]:
    return {"readout_rate": config.head_learning_rate, "titles.rate": config.titles.rate}


def several_logs(parts: Any) -> nn.Module:
    _, manifest, model, _, reader, _, _ = parts
    return MultiDatasetModel(model, reader.category_head, {"log": manifest.labels}, line_weight=0.1)


def optimizer_groups(
    module: nn.Module, batches: Any, config: TrainingConfig, folder: Path
) -> list[dict[str, Any]]:
    stream = BatchStream(batches, config.epochs)
    trainer = BatchTrainer(module, stream, RunState(len(stream)), config, folder)
    groups: list[dict[str, Any]] = trainer.create_optimizer().param_groups
    return groups


# ------------------------------------------------------------------------------------------------
# What is asked of each, as plain values: "numbers" come out of float32 kernels, and "told" is all
# else: texts, ids, and the numbers that stand beside them.
# ------------------------------------------------------------------------------------------------

PARTS = ("forecast", "words", "source", "list", "explanation", "why_not", "effect")


SAME_KERNELS = 1e-6  # LoRA is merged into float32 weights since: a score moves by 1e-7


def machine() -> dict[str, str]:
    """Say what float32 kernels depend on, and numpy's version."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": _cpu_model(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def tolerance(recorded: Mapping[str, str]) -> float:
    """How far numbers may lie from the recorded ones.

    Other kernels of the same sum round otherwise. Near 1e-4 two items may change places, so that
    there what is told is not compared at all.
    """
    kernels = ("torch", "cpu_capability", "cpu")
    same = all(machine()[name] == recorded[name] for name in kernels)
    return SAME_KERNELS if same else 1e-4


def forecast_fields(told: Forecast) -> dict[str, Any]:
    weights = {"category_weights": told.category_weights, "concentration": told.concentration}
    return weights | words_of(told)


def words_of(told: Forecast) -> dict[str, Any]:
    return {
        "description": told.description,
        "statements": [
            [said.kind, said.category, said.change, said.event_ids] for said in told.statements
        ],
    }


def edit_fields(edits: Sequence[Edit]) -> list[list[Any]]:
    return [[one.category, one.factor, one.until and str(one.until), one.lock] for one in edits]


def explanation_fields(found: Any) -> dict[str, Any]:
    """Give what 0.1 says of an explanation; verb, shelf, causes and past have come since."""
    fields: dict[str, Any] = found.to_dict()
    assert (fields["item"].pop("verb"), fields["item"].pop("shelf")) == ("taken", "all")
    del fields["item"]["causes"], fields["past"]
    return fields


def asked_of(engine: InterestEngine, user: str) -> dict[str, Any]:
    """Ask an engine all that can be asked about one person."""
    names, ids = engine.dataset.catalog.categories, engine.dataset.catalog.item_ids
    told = forecast(engine, user)
    listed = recommend(engine, user, 40, forecast=told)
    found, below = explain(engine, user, listed[2].item_id, told), listed[min(24, len(listed) - 1)]
    answer = why_not(engine, user, below.item_id, told)
    best = [names[c] for c in told.top(2)]
    edits = [Edit(best[0], 0.5), Edit(best[1], 3.0)]
    edited = effect(engine, user, edits, told)
    outcome = edited.verify(10)
    after = recommend(engine, user, 10, forecast=told, edits=edits)
    source = source_fields(told)
    return {
        "forecast": {
            "numbers": [
                told.category_weights,
                told.concentration,
                told.intervals(0.8)[told.top(20)],
            ],
            "told": [],
        },
        "words": {"numbers": [], "told": words_of(told)},
        "source": {"numbers": [], "told": source},
        "list": {
            "numbers": [item.score for item in listed],
            "told": [[item.item_id, item.title, item.why] for item in listed[:10]],
        },
        "explanation": {"numbers": [], "told": explanation_fields(found)},
        "why_not": {
            "numbers": [],
            "told": {
                "item": below.item_id,
                "rank": answer.rank,
                "gap": answer.gap,
                "factor": answer.factor,
                "rank_after": answer.rank_after,
                "edits": edit_fields(answer.edits),
                "text": answer.text,
            },
        },
        "effect": {
            "numbers": edited.after.category_weights,
            "told": {
                "edits": edit_fields(edits),
                "holds": effect_holds(outcome),
                "listed": [ids[item] for item in outcome.listed],
                "entered": [ids[item] for item in outcome.entered],
                "left": [ids[item] for item in outcome.left],
                "why": [item.why for item in after],
            },
        },
    }


def written_by_model(engine: InterestEngine, user: str) -> dict[str, Any]:
    """Ask an engine for what its language model words: a description, and three reasons."""
    let_the_model_write(engine, True)
    told = forecast(engine, user)
    reasons = reworded_reasons(engine, user, 3, told)
    let_the_model_write(engine, False)
    return {
        "numbers": told.category_weights[told.top(10)],
        "told": {
            **words_of(told),
            "source": source_fields(told),
            "reasons": [[item.why, *reworded_text(item.explanation)] for item in reasons],
        },
    }


def spread_users(engine: InterestEngine, n: int) -> list[str]:
    ids = engine.dataset.log.user_ids
    return [str(ids[at]) for at in np.linspace(0, len(ids) - 1, n).round().astype(int)]


def engine_record(engine: InterestEngine, n: int, n_written: int) -> dict[str, Any]:
    users = spread_users(engine, n)
    return {
        "users": {user: asked_of(engine, user) for user in users},
        "written": {user: written_by_model(engine, user) for user in users[:n_written]},
    }


def adapter_record() -> dict[str, Any]:
    dataset, adapter = open_log(), Path("adapter")
    windows = windows_at(dataset, holdout_cutoff(dataset.log, dataset.period))[:6]
    return {
        "fields": adapter_fields(adapter),
        "fingerprints": fingerprints(adapter),
        "numbers": {
            "base": category_scores(dataset, windows, None),
            "adapted": category_scores(dataset, windows, adapter),
            "titles": title_probabilities(dataset, windows, adapter),
        },
    }


def networks_record() -> dict[str, Any]:
    dataset = open_log()
    windows = windows_at(dataset, holdout_cutoff(dataset.log, dataset.period))[:6]
    named = pd.read_parquet("log.parquet")["item_id"].unique()
    nets = {
        name: {
            "category_weights": network_weights(name, windows),
            "concentration": [one.concentration for one in network_forecasts(name, windows)],
        }
        for name in STORED_NETWORKS
    }
    next_item = {
        "category_weights": next_item_weights(windows),
        # Version 0.1 had the items in the order in which the file names them.
        "scores": next_item_scores(windows)[:, dataset.catalog.item_ids.get_indexer(named)],
    }
    return nets | {"GRU4Rec": next_item}


def forecasts_record() -> dict[str, Any]:
    scores, record = forecast_scores(open_log())
    return {
        "rows": stored_forecasts(),
        "scores": by_model(scores.astype({"cutoff": "str"}).to_dict("records")),
        "record": by_model(record.to_dict("records")),
    }


def config_record() -> dict[str, Any]:
    return config_fields(load_config("config.yaml"))


def run_record() -> dict[str, Any]:
    """Go on with both unfinished runs, which changes their folders."""
    parts = run_parts()
    n_reading, n_lines = (_evaluated(Path(folder)) for folder in ("run", "lines"))
    return {
        "reading": _course(continue_reading(parts, Path("run")), n_reading),
        "lines": _course(continue_lines(parts, Path("lines")), n_lines),
    }


def _evaluated(folder: Path) -> int:
    """Count the validations that a run's only checkpoint holds."""
    (path,) = folder.glob("step-*/state.json")
    return len(json.loads(path.read_text(encoding="utf-8"))["run"]["evaluations"])


def _course(history: TrainingHistory, n_before: int) -> dict[str, Any]:
    """Say how a run went; seconds of the validations before it was cut off, since they are kept.

    A run that starts again from nothing ends with the same losses: seconds tell it apart.
    """
    losses = [
        {name: value for name, value in found.items() if name != "seconds"}
        for found in history.evaluations
    ]
    return {
        "steps": history.steps,
        "best_step": history.best_step,
        "stopped": history.stopped,
        "seconds": [found["seconds"] for found in history.evaluations[:n_before]],
        "losses": losses,
    }


# ------------------------------------------------------------------------------------------------
# Comparing.
# ------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Turn into what JSON holds: tuples and arrays to lists, days to text."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def differences(found: Any, recorded: Any, within: float, where: str = "") -> Iterator[str]:
    """Name all that differs: numbers by more than ``within``, of themselves where above 1."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        if found.keys() != recorded.keys():
            yield f"{where}: {sorted(found.keys() ^ recorded.keys())} in one and not in the other"
        for name in recorded.keys() & found.keys():
            yield from differences(found[name], recorded[name], within, f"{where}/{name}")
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(found) != len(recorded):
            yield f"{where}: {len(found)}, recorded are {len(recorded)}"
        for at, pair in enumerate(zip(found, recorded, strict=False)):
            yield from differences(*pair, within, f"{where}/{at}")
    elif _is_number(found) and _is_number(recorded):
        far = abs(found - recorded) > within * max(1.0, abs(recorded))
        if far or math.isnan(found) != math.isnan(recorded):
            yield f"{where}: {found!r}, recorded is {recorded!r}"
    elif found != recorded:
        yield f"{where}: {found!r}, recorded is {recorded!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def assert_same(found: Any, recorded: Any, within: float = 1e-9) -> None:
    wrong = list(differences(plain(found), recorded, within))
    assert not wrong, "\n".join([f"{len(wrong)} differences:", *wrong[:20]])


# Sentences are other than those of 0.1 (CHANGELOG.md): fields of words, and how many there are.
WORDS = ("description", "statements", "why", "text", "reasons", "proposed", "rejected")


def without_words(told: Any) -> Any:
    """Give what is told without its sentences; of an item that is listed, id and title."""
    if isinstance(told, dict):
        return {name: without_words(one) for name, one in told.items() if name not in WORDS}
    if isinstance(told, list):
        is_listed = len(told) == 3 and all(isinstance(one, str) for one in told)
        return told[:2] if is_listed else [without_words(one) for one in told]
    return told


def assert_same_part(found: Any, recorded: Any, within: float) -> None:
    """Compare numbers, and what is told; this only if the kernels are the recorded ones."""
    assert_same(found["numbers"], recorded["numbers"], within)
    if within <= SAME_KERNELS:
        told = without_words(plain(found["told"]))
        assert_same(told, without_words(recorded["told"]), within)


@cache
def expected(file: str = "expected.json") -> Any:
    return json.loads((SAVED / file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the saved files, so that nothing is written beside them."""
    folder = tmp_path_factory.mktemp("saved") / "v0_1"
    shutil.copytree(SAVED, folder)
    return folder


@pytest.fixture(scope="module")
def engine_answers(copy: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        return engine_record(open_engine("engine", "log.parquet"), n=5, n_written=2)


@pytest.mark.parametrize("part", PARTS)
def test_an_engine_folder_of_0_1_gives_the_same_forecasts_lists_and_explanations(
    engine_answers: Any, part: str
) -> None:
    recorded, within = expected()["engine"]["users"], tolerance(expected()["machine"])
    assert list(engine_answers["users"]) == list(recorded)
    for user, answers in recorded.items():
        assert_same_part(engine_answers["users"][user][part], answers[part], within)


def test_what_the_model_of_an_engine_of_0_1_writes_is_the_same(engine_answers: Any) -> None:
    recorded, within = expected()["engine"]["written"], tolerance(expected()["machine"])
    assert list(engine_answers["written"]) == list(recorded)
    for user, answers in recorded.items():
        assert_same_part(engine_answers["written"][user], answers, within)


def test_an_engine_of_0_1_is_saved_again_and_gives_the_same(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    open_engine("engine", "log.parquet").save_pretrained(tmp_path / "again")
    again = open_engine(tmp_path / "again", "log.parquet")
    within = tolerance(expected()["machine"])
    for user, answers in list(expected()["engine"]["users"].items())[:2]:
        found = asked_of(again, user)
        for part in PARTS:
            assert_same_part(found[part], answers[part], within)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("engine.json", DataError),
        ("calibration.json", DataError),
        ("adapter/adapter.json", ModelLoadError),
    ],
)
@pytest.mark.parametrize("version", [None, "9.9.9"])
def test_an_unknown_key_in_a_file_of_an_engine_is_refused_with_the_version_that_wrote_it(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    error: type[LlmrecError],
    version: str | None,
) -> None:
    monkeypatch.chdir(copy)
    shutil.copytree("engine", tmp_path / "engine")
    path = tmp_path / "engine" / file
    values = json.loads(path.read_text(encoding="utf-8")) | {"surprise": 1}
    if version and "versions" in values:
        values["versions"] |= {"llmrec": version}
    elif version:
        values["version"] = version
    path.write_text(json.dumps(values), encoding="utf-8")
    named = rf"{file}.*unknown key 'surprise', written by llmrec {version or '0.1.0'}"
    with pytest.raises(error, match=named):
        open_engine(tmp_path / "engine", "log.parquet")


@pytest.mark.parametrize("group", ["counting", "blend"])
def test_an_unknown_key_inside_the_settings_is_refused_with_the_version_that_wrote_it(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    monkeypatch.chdir(copy)
    shutil.copytree("engine", tmp_path / "engine")
    path = tmp_path / "engine" / "engine.json"
    values = json.loads(path.read_text(encoding="utf-8")) | {"version": "9.9.9"}
    values[group]["surprise"] = 1.0
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match=r"engine\.json.*'surprise', written by llmrec 9\.9\.9"):
        open_engine(tmp_path / "engine", "log.parquet")


@pytest.mark.parametrize("version", [None, "9.9.9"])
def test_an_unknown_column_of_stored_forecasts_is_refused_with_the_version_that_wrote_it(
    copy: Path, tmp_path: Path, version: str | None
) -> None:
    source = next((copy / "forecasts").glob("*.parquet"))
    table = pq.read_table(source)
    table = table.append_column("surprise", pa.array(range(len(table))))
    if version:
        table = table.replace_schema_metadata({"llmrec": version})
    pq.write_table(table, tmp_path / source.name)
    with pytest.raises(DataError, match=f"'surprise', written by llmrec {version or '0.1.0'}"):
        load_forecasts(tmp_path)


def test_files_say_which_version_wrote_them(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    engine = open_engine("engine", "log.parquet")
    engine.save_pretrained(tmp_path / "engine")
    for name in ("engine.json", "calibration.json"):
        values = json.loads((tmp_path / "engine" / name).read_text(encoding="utf-8"))
        assert values["version"] == __version__
    dataset, history = open_log(), engine.histories([0])[0]
    stored = save_forecasts(tmp_path, dataset, [history], [engine.forecast(history)])
    assert pq.read_schema(stored).metadata[b"llmrec"] == __version__.encode()
    assert len(load_forecasts(tmp_path)) == 1


def test_an_adapter_of_0_1_says_the_same_of_itself_and_reads_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    recorded, found = expected()["adapter"], adapter_record()
    assert_same(found["fields"], recorded["fields"])
    assert found["fingerprints"] == recorded["fingerprints"]
    assert_same(found["numbers"], recorded["numbers"], tolerance(expected()["machine"]))
    base, adapted = (np.array(found["numbers"][name]) for name in ("base", "adapted"))
    assert np.abs(base - adapted).max() > 0.1  # its own head is the one that was asked


def test_nets_of_0_1_forecast_the_same(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cornac", reason="needs llmrec[sequential]")
    monkeypatch.chdir(copy)
    assert_same(networks_record(), expected()["networks"])


def test_the_parameters_of_nets_are_named_in_files_as_in_0_1() -> None:
    pytest.importorskip("cornac", reason="needs llmrec[sequential]")
    assert parameter_names() == expected()["parameter_names"]


def test_forecasts_stored_by_0_1_have_the_same_hashes_and_scores(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    recorded = expected()["forecasts"]
    found = forecasts_record()
    tables = {name: by_model(recorded[name]) for name in ("scores", "record")}
    for table in ("scores", "record"):
        found[table], tables[table] = map(of_0_1, (found[table], tables[table]))
    assert_same(found, recorded | tables)


def test_a_config_of_0_1_is_read_by_its_keys(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    found = plain(config_record())
    assert found == expected()["config"]
    plainest = plain(config_fields(TrainingConfig(out="elsewhere")))
    same = [name for name in found if found[name] == plainest[name]]
    assert not same, "a key at its default says nothing"


def test_an_unfinished_run_of_0_1_is_gone_on_with_and_ends_with_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SAVED, tmp_path / "v0_1")
    monkeypatch.chdir(tmp_path / "v0_1")
    assert_same(run_record(), expected()["run"], tolerance(expected()["machine"]))


@pytest.mark.parametrize("made", [lambda parts: parts[4], several_logs], ids=["one", "several"])
def test_each_head_is_trained_at_its_own_rate(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[[Any], nn.Module],
) -> None:
    monkeypatch.chdir(copy)
    parts = run_parts()
    config, training, module = parts[0], parts[5], made(parts)
    rates = head_rates(config)
    assert len({config_fields(config)["rate"], *rates.values()}) == 3
    groups = optimizer_groups(module, training, config, tmp_path)
    trained = {group["lr"]: {id(values) for values in group["params"]} for group in groups}
    own = {
        name: {id(values) for values in head.parameters() if values.requires_grad}
        for name, head in heads(module).items()
    }
    assert all(own.values())
    for name, parameters in own.items():
        assert trained.pop(rates[name]) == parameters
    every = {id(values) for values in module.parameters() if values.requires_grad}
    assert trained == {config_fields(config)["rate"]: every.difference(*own.values())}
    assert all(trained.values())


@cache
def bundled_answers(name: str) -> Any:
    return engine_record(open_bundled(name), n=8, n_written=2)


@pytest.mark.slow
@needs_real_parts
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["ml-100k", "completejourney"])
def test_a_bundled_engine_gives_what_it_gave_in_0_1(name: str, part: str) -> None:
    record = expected("bundled-engines.json")
    recorded, within = record[name]["users"], tolerance(record["machine"])
    found = bundled_answers(name)["users"]
    assert list(found) == list(recorded)
    for user, answers in recorded.items():
        assert_same_part(found[user][part], answers[part], within)


@pytest.mark.slow
@needs_real_parts
@pytest.mark.parametrize("name", ["ml-100k", "completejourney"])
def test_the_model_of_a_bundled_engine_writes_what_it_wrote_in_0_1(name: str) -> None:
    record = expected("bundled-engines.json")
    recorded, within = record[name]["written"], tolerance(record["machine"])
    found = bundled_answers(name)["written"]
    assert list(found) == list(recorded)
    for user, answers in recorded.items():
        assert_same_part(found[user], answers, within)
