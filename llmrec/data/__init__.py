"""Logs, catalogs and periods: what is known of people, and windows to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.data.periods import History as History
    from llmrec.data.periods import Window as Window
    from llmrec.data.periods import make_histories as make_histories
    from llmrec.data.splits import split_windows as split_windows
    from llmrec.data.splits import training_windows as training_windows
    from llmrec.data.synthetic import make_synthetic_world as make_synthetic_world
    from llmrec.data.windows import make_windows as make_windows

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.data.periods": ["History", "Window", "make_histories"],
        "llmrec.data.splits": ["split_windows", "training_windows"],
        "llmrec.data.synthetic": ["make_synthetic_world"],
        "llmrec.data.windows": ["make_windows"],
    },
)
