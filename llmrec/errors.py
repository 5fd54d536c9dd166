"""The named errors of the package: each says what was found, where, and the way out."""

from __future__ import annotations


class LlmrecError(Exception):
    """Root of all errors raised on purpose by this package."""


class DataError(LlmrecError, ValueError):
    """A frame, file or value that cannot be read as interactions or as a catalog."""


class OptionError(LlmrecError, TypeError):
    """Options that do not go together; the message names them."""


class EditError(LlmrecError, ValueError):
    """An edit, or a text of edits, that cannot be applied; the message names it and the way out."""


class ForecastParseError(LlmrecError, ValueError):
    """A forecast line that does not say a forecast.

    Attributes
    ----------
    reason
        Machine-readable cause, such as ``"unknown category"``; parse failures are counted by it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class ModelLoadError(LlmrecError, ValueError):
    """A model folder, adapter or hub id that cannot be loaded."""


class MissingExtraError(LlmrecError, ImportError):
    """An optional dependency is needed; the message names the pip command."""


class CacheError(LlmrecError, OSError):
    """The cache folder cannot be used; the message names it and the way out."""


class TrainingError(LlmrecError, RuntimeError):
    """A model that cannot learn, or was used before it was fitted; the message names the cause."""


class StoreError(LlmrecError, RuntimeError):
    """The database of events does not answer, or is too busy; the message names it."""
