"""Statements, evidence and counterfactuals, and the program that checks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.explain.explanation import check_explanation as check_explanation
    from llmrec.explain.plots import save_html as save_html

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.explain.explanation": ["check_explanation"],
        "llmrec.explain.plots": ["save_html"],
    },
)
