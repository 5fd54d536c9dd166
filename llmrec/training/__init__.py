"""Fine-tuning: examples, runs, and merged adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.training.config import load_config as load_config
    from llmrec.training.dataset import save_examples as save_examples
    from llmrec.training.loop import train as train
    from llmrec.training.merge import merge_adapter as merge_adapter

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.training.config": ["load_config"],
        "llmrec.training.dataset": ["save_examples"],
        "llmrec.training.loop": ["train"],
        "llmrec.training.merge": ["merge_adapter"],
    },
)
