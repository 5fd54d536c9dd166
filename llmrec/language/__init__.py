"""The language model: prompts, category scores, generated lines, adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.language.adapters import AdapterMetadata as AdapterMetadata
    from llmrec.language.codec import Codec as Codec
    from llmrec.language.encoder import TextEncoder as TextEncoder
    from llmrec.language.model import LanguageModel as LanguageModel

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.language.adapters": ["AdapterMetadata"],
        "llmrec.language.codec": ["Codec"],
        "llmrec.language.encoder": ["TextEncoder"],
        "llmrec.language.model": ["LanguageModel"],
    },
)
