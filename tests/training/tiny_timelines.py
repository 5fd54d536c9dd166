"""A small log, tiny models with LoRA inside, and readers of both."""

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
from llmrec.language.pretrained import add_lora
from tests.language import tiny_models
from tests.worlds import catalog, log

PRIOR = DecayedDirichlet(0.8, 10.0)
KINDS = ("llama", "t5")


def dataset(period: str = "7D", n_users: int = 4, n_periods: int = 8) -> Dataset:
    """Each user takes 6 to 11 films a week."""
    items = catalog()
    events = log(n_users, n_periods).align_to(items)
    return Dataset("small", events, items, period, "films", "viewer", "allow")


def codec_of(data: Dataset, model: LanguageModel | None = None, budget: int = 200) -> Codec:
    counting = {} if model is None else {"count_tokens": model.count_tokens}
    names = data.catalog.categories
    return Codec(
        names, person="viewer", noun="films", template="forecast-v3", budget=budget, **counting
    )


def saved(kind: str, folder: Path) -> Path:
    sizes = {"max_position_embeddings": 512} if kind == "llama" else {}
    return getattr(tiny_models, f"save_{kind}")(folder, **sizes)  # type: ignore[no-any-return]


def adapted(folder: Path, *, random: bool = True) -> tuple[LanguageModel, PeftModel]:
    """Load a model afresh with LoRA inside; ``random``: one that already changes what it says."""
    model = LanguageModel.load(str(folder), device="cpu")
    targets = ["q", "v"] if model.is_encoder_decoder else ["q_proj", "v_proj"]
    inside = add_lora(model.model, rank=2, alpha=4, dropout=0.0, targets=targets)
    torch.manual_seed(5)
    for name, values in inside.named_parameters():
        if random and "lora_B" in name:
            torch.nn.init.normal_(values, std=0.2)
    return model, inside


def reader_of(model: LanguageModel, codec: Codec, *, random: bool = True, **changes: Any) -> Any:
    """Give a reader; ``random``: its readout already says something."""
    from llmrec.training.objective import TimelineModel

    table = model.model.get_input_embeddings().weight
    torch.manual_seed(6)
    readout = CategoryHead(table.shape[1], 4, changes.pop("depth", None))
    if random:
        torch.nn.init.normal_(readout.up.weight)
    names = label_embeddings(Verbalizer(codec.labels, model.encode), table)
    options = {"end": model.tokenizer.eos_token_id, "line_weight": 0.5, **changes}
    return TimelineModel(model.model, readout, names, **options)
