"""Fine-tuned language models whose scores and lines are cached on disk, by the text they are of."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.periods import Window
from llmrec.engine_folder import ADAPTER_FOLDER
from llmrec.forecast import Forecaster
from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
from llmrec.language.adapters import AdapterMetadata, adapter_hash
from llmrec.language.codec import Codec, codec_for
from llmrec.language.generation import Generation
from llmrec.language.heads import Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.types import FloatArray

SCORED_PER_FILE, GENERATED_PER_FILE = 128, 16  # prompts that an interrupted run may lose


class CachedLanguageModel(LanguageModel):
    """A language model that looks up in a folder what it scored or generated before."""

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        parts = (model.adapter, model.category_head, model.title_embeddings)
        super().__init__(model.name, model.model, model.tokenizer, *parts)
        self.folder = folder
        self._states: dict[tuple[str, int | None], torch.Tensor] = {}

    def final_states(
        self, prompts: Sequence[str], depth: int | None, **setting: Any
    ) -> torch.Tensor:
        """(n_prompts, d) states; those of this run are cached: categories and titles use both."""
        missing = [
            prompt for prompt in prompts if (_digest(prompt.encode()), depth) not in self._states
        ]
        if missing:
            states = super().final_states(missing, depth, **setting)
            keys = [(_digest(prompt.encode()), depth) for prompt in missing]
            self._states |= dict(zip(keys, states, strict=True))
        return torch.stack([self._states[_digest(prompt.encode()), depth] for prompt in prompts])

    def score_categories(self, prompts: Sequence[str], verbalizer: Verbalizer) -> FloatArray:
        """(n_prompts, n_categories) scores, see `LanguageModel.score_categories`."""
        labels = _digest(verbalizer.token_ids.tobytes(), verbalizer.matrix.toarray().tobytes())
        folder = self.folder / f"readings-{labels}"
        cached: dict[str, FloatArray] = {}
        for path in folder.glob("*.npz"):
            with np.load(path) as stored:
                cached |= dict(zip(stored["keys"].tolist(), stored["scores"], strict=True))
        by_key = {_digest(prompt.encode()): prompt for prompt in prompts}
        missing = [key for key in by_key if key not in cached]
        for start in range(0, len(missing), SCORED_PER_FILE):
            keys = missing[start : start + SCORED_PER_FILE]
            scores = super().score_categories([by_key[key] for key in keys], verbalizer)
            single = scores.astype(np.float32)
            content = io.BytesIO()
            np.savez(content, keys=np.array(keys), scores=single)
            path = folder / f"{_digest(*map(str.encode, keys))}.npz"
            atomic_write_bytes(path, content.getvalue())
            cached |= dict(zip(keys, single, strict=True))
        return np.stack([cached[_digest(prompt.encode())] for prompt in prompts]).astype(np.float64)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        constrain: str | Sequence[str] | None = None,
        **setting: Any,
    ) -> list[Generation]:
        """Generate one line after each prompt; see `LanguageModel.generate`."""
        grammars = [constrain] * len(prompts) if isinstance(constrain, str | None) else constrain
        setting_json = json.dumps(setting, sort_keys=True).encode()
        keys = [
            _digest(setting_json, (grammar or "").encode(), prompt.encode())
            for prompt, grammar in zip(prompts, grammars, strict=True)
        ]
        folder, cached = self.folder / "lines", dict[str, list[Any]]()
        for path in folder.glob("*.json"):
            cached |= json.loads(path.read_text(encoding="utf-8"))
        by_key = dict(zip(keys, zip(prompts, grammars, strict=True), strict=True))
        missing = [key for key in by_key if key not in cached]
        for start in range(0, len(missing), GENERATED_PER_FILE):
            part = missing[start : start + GENERATED_PER_FILE]
            rules = [grammar for _, grammar in map(by_key.__getitem__, part) if grammar]
            texts = [by_key[key][0] for key in part]
            lines = super().generate(texts, constrain=rules or None, **setting)
            generated = {key: list(astuple(line)) for key, line in zip(part, lines, strict=True)}
            path = folder / f"{_digest(*map(str.encode, part))}.json"
            atomic_write_text(path, json.dumps(generated))
            cached |= generated
        return [Generation(*cached[key]) for key in keys]


@dataclass(frozen=True, eq=False)
class FineTunedRun:
    """A fine-tuned model, its adapter's metadata, and the log that it is evaluated on.

    Attributes
    ----------
    name
        What rows call it.
    model, metadata
        The model with its adapter, and what the adapter's folder says of it.
    dataset
        The log, which need not be the one that it was trained on.
    validation_run
        What stands in for it on validation windows, if it has learned from these.
    """

    name: str
    model: CachedLanguageModel
    metadata: AdapterMetadata
    dataset: Dataset
    validation_run: FineTunedRun | None = None

    def for_split(self, split: str) -> FineTunedRun:
        """Choose the run that may score the windows of a split."""
        if self.validation_run is not None and split == "validation":
            return self.validation_run
        return self

    @classmethod
    def load(cls, name: str, folder: Path, dataset: Dataset, cache: Path) -> FineTunedRun:
        """Load from the folder of an engine, of an adapter, or of a merged model."""
        adapter = adapter_folder(folder)
        metadata = AdapterMetadata.load(adapter)
        model = (
            LanguageModel.load(str(adapter), adapter=None)
            if metadata.merged
            else LanguageModel.load(metadata.base_model, adapter=adapter)
        )
        cached = CachedLanguageModel(model, cache / adapter_hash(adapter))
        return cls(name, cached, metadata, dataset)

    def codec(self, windows: Sequence[Window]) -> Codec:
        """Make the prompts of windows, whose catalog may name categories and items anew."""
        dataset = replace(self.dataset, catalog=windows[0].history.catalog)
        budget = int(self.metadata.config.get("budget", 300))
        return codec_for(dataset, self.model, template=self.metadata.prompt, budget=budget)

    def forecaster(self, prior: Forecaster, windows: Sequence[Window]) -> LLMForecaster:
        """Make a forecaster for windows, not calibrated yet."""
        return LLMForecaster(self.model, self.codec(windows), prior)

    def category_scores(self, prior: Forecaster, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n_categories) centred scores."""
        histories = [window.history for window in windows]
        return self.forecaster(prior, windows).category_scores(histories)

    def title_weights(self, prior: Forecaster, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n_categories) sums of the title probabilities, nothing mixed in."""
        codec, histories = self.codec(windows), [window.history for window in windows]
        prompts = _digest(*(codec.prompt(history).encode() for history in histories))
        path = self.model.folder / f"titles-{prompts}.npy"
        if not path.exists():
            titles = TitleForecaster(self.model, codec, prior)
            content = io.BytesIO()
            np.save(content, titles.title_category_weights(histories))
            atomic_write_bytes(path, content.getvalue())
        return np.asarray(np.load(path))


def adapter_folder(folder: Path) -> Path:
    """Find the folder that holds adapter.json: the one inside an engine's, or the folder itself."""
    return folder / ADAPTER_FOLDER if (folder / ADAPTER_FOLDER).is_dir() else folder


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()
