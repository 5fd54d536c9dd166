"""A small log, tiny models with LoRA inside, and timeline models made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from llmrec.data.dataset import Dataset
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.heads import CategoryHead, Verbalizer, label_embeddings
from llmrec.language.model import LanguageModel
from llmrec.training.lora import add_lora
from llmrec.training.objective import TimelineModel
from tests.language import tiny_models
from tests.worlds import catalog, log

PRIOR = DecayedDirichlet(0.8, 10.0)
FAMILIES = ("llama", "t5")


def make_dataset(period: str = "7D", n_users: int = 4, n_periods: int = 8) -> Dataset:
    """Each user takes 6 to 11 films a week."""
    items = catalog()
    events = log(n_users, n_periods).align_to(items)
    return Dataset("small", events, items, period, "films", "viewer", "allow")


def make_codec(data: Dataset, model: LanguageModel | None = None, budget: int = 200) -> Codec:
    counting = {} if model is None else {"count_tokens": model.count_tokens}
    names = data.catalog.categories
    return Codec(
        names, person="viewer", noun="films", template="forecast-v3", budget=budget, **counting
    )


def save_model(family: str, folder: Path) -> Path:
    sizes = {"max_position_embeddings": 512} if family == "llama" else {}
    return getattr(tiny_models, f"save_{family}")(folder, **sizes)  # type: ignore[no-any-return]


def load_with_lora(folder: Path, *, random: bool = True) -> tuple[LanguageModel, PeftModel]:
    """Load a model afresh and add LoRA; ``random``: LoRA that already changes its outputs."""
    model = LanguageModel.load(str(folder), device="cpu")
    targets = ["q", "v"] if model.is_encoder_decoder else ["q_proj", "v_proj"]
    adapted = add_lora(model.model, rank=2, alpha=4, dropout=0.0, targets=targets)
    torch.manual_seed(5)
    for name, values in adapted.named_parameters():
        if random and "lora_B" in name:
            torch.nn.init.normal_(values, std=0.2)
    return model, adapted


def make_timeline_model(
    model: LanguageModel, codec: Codec, *, random: bool = True, **changes: Any
) -> TimelineModel:
    """Make a timeline model; ``random``: its category head already gives scores."""
    table = model.model.get_input_embeddings().weight
    torch.manual_seed(6)
    head = CategoryHead(table.shape[1], 4, changes.pop("depth", None))
    if random:
        torch.nn.init.normal_(head.up.weight)
    labels = label_embeddings(Verbalizer(codec.labels, model.encode), table)
    options = {"end": model.tokenizer.eos_token_id, "line_weight": 0.5, **changes}
    return TimelineModel(model.model, head, labels, **options)
