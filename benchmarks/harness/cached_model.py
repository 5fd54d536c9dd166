"""Fine-tuned language models that never read or write the same twice: answers are kept on disk."""

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
from llmrec.engine import ADAPTER_FOLDER
from llmrec.forecast import Forecaster
from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
from llmrec.language.adapters import AdapterMetadata, adapter_hash
from llmrec.language.codec import codec_for
from llmrec.language.generation import Generation
from llmrec.language.heads import Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.types import FloatArray

READ_AT_ONCE, WRITTEN_AT_ONCE = 128, 16  # prompts that a run that is cut off may lose


class Remembering(LanguageModel):
    """A language model whose readings and lines are kept in a folder, by the text they are of."""

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        parts = (model.adapter, model.category_head, model.title_embeddings)
        super().__init__(model.name, model.model, model.tokenizer, *parts)
        self.folder = folder
        self._states: dict[tuple[str, int | None], torch.Tensor] = {}

    def final_states(
        self, prompts: Sequence[str], depth: int | None, **setting: Any
    ) -> torch.Tensor:
        """(n_prompts, d) states; those of this run are kept, for reading and foretelling both."""
        missing = [
            prompt for prompt in prompts if (_key(prompt.encode()), depth) not in self._states
        ]
        if missing:
            found = super().final_states(missing, depth, **setting)
            keys = [(_key(prompt.encode()), depth) for prompt in missing]
            self._states |= dict(zip(keys, found, strict=True))
        return torch.stack([self._states[_key(prompt.encode()), depth] for prompt in prompts])

    def score_categories(self, prompts: Sequence[str], readout: Verbalizer) -> FloatArray:
        """(n_prompts, n_categories) scores, see `LanguageModel.score_categories`."""
        labels = _key(readout.token_ids.tobytes(), readout.matrix.tobytes())
        folder = self.folder / f"readings-{labels}"
        known: dict[str, FloatArray] = {}
        for path in folder.glob("*.npz"):
            with np.load(path) as kept:
                known |= dict(zip(kept["keys"].tolist(), kept["scores"], strict=True))
        wanted = {_key(prompt.encode()): prompt for prompt in prompts}
        missing = [key for key in wanted if key not in known]
        for start in range(0, len(missing), READ_AT_ONCE):
            keys = missing[start : start + READ_AT_ONCE]
            scores = (
                super().score_categories([wanted[key] for key in keys], readout).astype(np.float32)
            )
            content = io.BytesIO()
            np.savez(content, keys=np.array(keys), scores=scores)
            atomic_write_bytes(folder / f"{_key(*map(str.encode, keys))}.npz", content.getvalue())
            known |= dict(zip(keys, scores, strict=True))
        return np.stack([known[_key(prompt.encode())] for prompt in prompts]).astype(np.float64)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        constrain: str | Sequence[str] | None = None,
        **setting: Any,
    ) -> list[Generation]:
        """Write one line after each prompt; see `LanguageModel.generate`."""
        grammars = [constrain] * len(prompts) if isinstance(constrain, str | None) else constrain
        said = json.dumps(setting, sort_keys=True).encode()
        keys = [
            _key(said, (grammar or "").encode(), prompt.encode())
            for prompt, grammar in zip(prompts, grammars, strict=True)
        ]
        folder, known = self.folder / "lines", dict[str, list[Any]]()
        for path in folder.glob("*.json"):
            known |= json.loads(path.read_text(encoding="utf-8"))
        wanted = dict(zip(keys, zip(prompts, grammars, strict=True), strict=True))
        missing = [key for key in wanted if key not in known]
        for start in range(0, len(missing), WRITTEN_AT_ONCE):
            part = missing[start : start + WRITTEN_AT_ONCE]
            rules = [grammar for _, grammar in map(wanted.__getitem__, part) if grammar]
            texts = [wanted[key][0] for key in part]
            lines = super().generate(texts, constrain=rules or None, **setting)
            found = {key: list(astuple(line)) for key, line in zip(part, lines, strict=True)}
            atomic_write_text(folder / f"{_key(*map(str.encode, part))}.json", json.dumps(found))
            known |= found
        return [Generation(*known[key]) for key in keys]


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned model as it is asked here.

    Attributes
    ----------
    name
        What rows call it.
    model, about
        The model with its adapter, and what the adapter says of itself.
    dataset
        The log that it reads, which need not be the one that it was trained on.
    before
        What answers for it on validation windows, if it has learned from these.
    """

    name: str
    model: Remembering
    about: AdapterMetadata
    dataset: Dataset
    before: Tuned | None = None

    def on(self, split: str) -> Tuned:
        """Give what may be asked about the windows of a split."""
        return self.before if self.before and split == "validation" else self

    @classmethod
    def opened(cls, name: str, folder: Path, dataset: Dataset, kept: Path) -> Tuned:
        """Load from the folder of an engine, of an adapter, or of a merged model."""
        inside = adapter_inside(folder)
        about = AdapterMetadata.load(inside)
        merged = (str(inside), None)
        source, adapter = merged if about.merged else (about.base_model, inside)
        model = LanguageModel.load(source, adapter=adapter)
        return cls(name, Remembering(model, kept / adapter_hash(inside)), about, dataset)

    def forecaster(self, prior: Forecaster, windows: Sequence[Window], **how: Any) -> LLMForecaster:
        """Give a forecaster for windows, whose catalog may name categories and items anew."""
        dataset = replace(self.dataset, catalog=windows[0].history.catalog)
        budget = int(self.about.config.get("budget", 300))
        codec = codec_for(dataset, self.model, template=self.about.prompt, budget=budget)
        return LLMForecaster(self.model, codec, prior, **how)

    def read(self, prior: Forecaster, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n_categories) centred scores."""
        return self.forecaster(prior, windows).category_scores(
            [window.history for window in windows]
        )

    def titles(self, prior: Forecaster, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n_categories) what the titles alone say that it foretells."""
        codec, people = self.forecaster(prior, windows).codec, [w.history for w in windows]
        asked = _key(*(codec.prompt(history).encode() for history in people))
        path = self.model.folder / f"titles-{asked}.npy"
        if not path.exists():
            content = io.BytesIO()
            np.save(
                content, TitleForecaster(self.model, codec, prior).title_category_weights(people)
            )
            atomic_write_bytes(path, content.getvalue())
        return np.asarray(np.load(path))


def adapter_inside(folder: Path) -> Path:
    """Give the folder that holds adapter.json: an engine's own, or the folder itself."""
    return folder / ADAPTER_FOLDER if (folder / ADAPTER_FOLDER).is_dir() else folder


def _key(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()
