"""Changed folders: refused by an error that names the file, or harmless; nothing else happens."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from llmrec.batch.shards import load_partition, read_cells
from llmrec.data.stored import Stored
from llmrec.engine import InterestEngine
from llmrec.evaluation.forecast_store import load_forecasts
from llmrec.fit_store import FitStore
from llmrec.language.model import LanguageModel
from llmrec.training.checkpoints import checkpoint_at, save_checkpoint
from llmrec.training.dataset import load_examples
from tests import test_whole_engine
from tests.hostile import artefacts
from tests.hostile.conftest import Count
from tests.hostile.guarded import Outcome, run_guarded
from tests.hostile.mutations import change_folder, hash_again
from tests.language import tiny_models
from tests.language.test_adapters import save_adapter

SHARE = {"engine": 3, "trees": 3, "adapter": 3, "model": 2, "checkpoint": 2}  # of the cases
SPARE_BYTES, SPARE_SECONDS = 2**25, 2.0


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def read_engine(folder: Path) -> str:
    """Load an engine and give what it answers of two people."""
    engine = InterestEngine.from_pretrained(str(folder), model=None)
    items = engine.dataset.catalog.item_ids[:3]
    times = np.datetime64(engine.cutoff, "D") - np.arange(1, 1 + len(items))
    events = pd.DataFrame({"item_id": items, "timestamp": times})
    forecast = engine.forecast(events)
    weights = forecast.category_weights
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert abs(weights.sum() - 1) < 1e-6
    assert 0 < forecast.concentration < np.inf
    best = engine.recommend(events, k=10)
    scores = [item.score for item in best]
    assert np.isfinite(scores).all()
    listed = [(item.item_id, item.title, item.score, item.why) for item in best]
    return digest(weights.tolist(), forecast.concentration, forecast.description, listed)


def weights_of(model: LanguageModel) -> str:
    found = []
    modules = [model.model, *filter(None, (model.category_head, model.title_embeddings))]
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            assert not value.is_floating_point() or torch.isfinite(value).all(), name
            found.append((name, value.float().numpy().tobytes()))
        states = [getattr(one, "scaling", None) for one in module.modules()]
        found.append(("scaling", repr(states).encode()))
    logits = model.model(torch.arange(5)[None]).logits
    assert torch.isfinite(logits).all()
    return digest(found, logits.tolist())


def read_model(folder: Path) -> str:
    return weights_of(LanguageModel.load(str(folder), device="cpu"))


def read_adapter(folder: Path) -> str:
    base = folder.parent.parent / "base" / "model"
    return weights_of(LanguageModel.load(str(base), device="cpu", adapter=folder))


def read_checkpoint(folder: Path) -> str:
    checkpoint = checkpoint_at(folder, 10)
    tensors = checkpoint.load_tensors("parameters")
    return digest({n: t.tolist() for n, t in tensors.items()}, checkpoint.load_values())


def read_forecasts(folder: Path) -> str:
    return digest(
        [
            (one.receipt, one.user_id, one.forecast.category_weights)
            for one in load_forecasts(folder)
        ]
    )


def read_examples(folder: Path) -> str:
    manifest, parts = load_examples(folder)
    return digest(manifest, {name: part.to_dict() for name, part in parts.items()})


def read_shards(folder: Path) -> str:
    partition = load_partition(folder)
    cells = (one for n in range(partition.n_shards) for one in read_cells(folder, partition, n))
    return digest(partition, [cell.to_pylist() for cell in cells])


def fitted_part(version: int) -> Stored:
    array = np.arange(20.0) + version
    part = Stored("part", {"text": "taste"}, {"more": array}, {"text": "trees"})
    return Stored("fit", {"alpha": 0.5}, {"numbers": array}, {}, {"part": part})


def save_fit(folder: Path, version: int) -> None:
    FitStore(folder).get("member", {"n": 1}, lambda: fitted_part(version))


def read_fit(folder: Path) -> str:
    """What cannot be read is fitted again, which gives the same."""
    found = FitStore(folder).get("member", {"n": 1}, lambda: fitted_part(0))
    inside = [
        {n: a.tolist() for n, a in one.arrays.items()} for one in (found, *found.parts.values())
    ]
    return digest(found.kind, found.values, inside, [one.texts for one in found.parts.values()])


@cache
def trees(version: int) -> InterestEngine:
    made = InterestEngine.from_pretrained(data=test_whole_engine.dataset("7D"), model=None)
    return made.fit("standard", seed=version)


def save_model(folder: Path, version: int) -> None:
    """A model that an adapter was merged into: it has the hashes of its files."""
    torch.manual_seed(version)
    tiny_models.save_llama(folder)
    torch.manual_seed(0)
    replace(tiny_models.ABOUT, merged=True, prompt=f"forecast-v{version + 1}").save(folder)


def save_adapter_of(folder: Path, version: int) -> None:
    base = folder.parent.parent / "base" / "model"
    if not base.exists():
        tiny_models.save_llama(base)
    loaded = LanguageModel.load(str(base), device="cpu")
    save_adapter(folder, loaded, base, r=2 + version)


def save_shards(folder: Path, version: int) -> None:
    artefacts.save_shards(folder, 0)
    source = artefacts.ParquetEvents((folder.parent / "events.parquet",))
    artefacts.cut_into_shards(source, artefacts.shop().catalog, folder, 300 + 200 * version)


def save_checkpoint_of(folder: Path, version: int) -> None:
    tensors = {"parameters": {"weight": torch.full((40, 50), float(version))}}
    save_checkpoint(folder, 10, tensors, {"version": version, "list": [1, 2]})


KINDS: dict[str, tuple[Callable[[Path, int], object], Callable[[Path], str]]] = {
    "engine": (artefacts.save_engine_of, read_engine),
    "trees": (lambda folder, version: trees(version).save_pretrained(folder), read_engine),
    "adapter": (save_adapter_of, read_adapter),
    "model": (save_model, read_model),
    "checkpoint": (save_checkpoint_of, read_checkpoint),
    "forecasts": (artefacts.save_forecasts_of, read_forecasts),
    "examples": (artefacts.save_examples_of, read_examples),
    "shards": (save_shards, read_shards),
    "fit": (save_fit, read_fit),
}


class Trial:
    """An artefact of a kind, its changed copies, and what came of the unchanged one."""

    def __init__(self, kind: str, place: Path) -> None:
        save, self.read = KINDS[kind]
        self.whole, self.other = place / "whole" / kind, place / "another" / kind
        self.folder = place / "changed" / kind
        for version, folder in enumerate((self.whole, self.other)):
            folder.parent.mkdir(parents=True)
            save(folder, version)
        self.restore()
        self.read(self.folder)  # what is imported once is imported
        self.normal = run_guarded(partial(self.read, self.folder), self.folder)
        assert self.normal.answer, self.normal

        self.is_store, self.harmless = kind == "forecasts", {self.normal.answer}
        if self.is_store:  # each row says whose it is: a file of another store stays what it is
            self.harmless.add(self.read(self.other))

    def restore(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)

    def fault_of(self, number: int, *, hashed: bool) -> str:
        """Say what broke a guarantee in a case; "" if nothing did."""
        self.restore()
        change = change_folder(self.folder, self.other, number)
        if hashed:
            hash_again(self.folder)
        found = run_guarded(partial(self.read, self.folder), self.folder)
        fault = found.broken or self._excess(found)
        if not fault and not hashed:
            fault = self._silent(found, change.file)
        return f"{number} ({change.name}): {fault}" if fault else ""

    def _excess(self, found: Outcome) -> str:
        if found.seconds > self.normal.seconds + SPARE_SECONDS:
            return f"{found.seconds:.1f} s"
        if found.n_bytes > 2 * self.normal.n_bytes + SPARE_BYTES:
            return f"{found.n_bytes / 2**20:.0f} MB, normally {self.normal.n_bytes / 2**20:.0f}"
        return ""

    def _silent(self, found: Outcome, file: str) -> str:
        if found.error:
            # A store of forecasts does not know which files it should have.
            file = self.folder.name if self.is_store and not (self.folder / file).exists() else file
            return "" if file in found.error else f"{file} is not named by {found.error[:300]}"
        return "" if found.answer in self.harmless else "another answer"


def faults(kind: str, place: Path, n: int, *, hashed: bool) -> list[str]:
    trial, first = Trial(kind, place), 10_000 * list(KINDS).index(kind)
    numbers = range(first, first + n)
    return [fault for i in numbers if (fault := trial.fault_of(i, hashed=hashed))]


FAST = ("engine", "checkpoint", "forecasts", "shards", "fit")  # the rest is slow to make
ALL = {kind: SHARE.get(kind, 1) for kind in KINDS}


def cases(n_all: int) -> list[object]:
    """List kinds with numbers of cases, few for the fast suite and together ``n_all``."""
    unit = n_all / sum(ALL.values())
    few = [pytest.param(kind, 6, id=f"some-{kind}") for kind in FAST]
    every = [
        pytest.param(kind, round(unit * n), id=f"all-{kind}", marks=pytest.mark.hostile)
        for kind, n in ALL.items()
    ]
    return [*few, *every]


@pytest.mark.parametrize(("kind", "n"), cases(306))
def test_what_was_changed_is_refused_by_name_or_changes_nothing(
    kind: str, n: int, tmp_path: Path, count: Count
) -> None:
    found = faults(kind, tmp_path, n, hashed=False)
    count("changed folders: refused by name, or the same to the bit", n, len(found))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("kind", "n"), cases(510))
def test_hashes_made_again_let_no_code_run_nor_end_the_process(
    kind: str, n: int, tmp_path: Path, count: Count
) -> None:
    found = faults(kind, tmp_path, n, hashed=True)
    count("changed folders with hashes made again: an error, or another that works", n, len(found))
    assert not found, "\n".join(found)
