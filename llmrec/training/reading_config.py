"""The fields of a training config that say how its log is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrec.errors import MissingExtraError

try:
    from pydantic import (
        BaseModel,
        Field,
        SerializerFunctionWrapHandler,
        ValidationInfo,
        field_validator,
        model_serializer,
    )
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

from llmrec.data.options import READING_FIELDS, ReadingOptions
from llmrec.types import RepeatPolicy


def _field(name: str) -> Any:
    option = READING_FIELDS[name]
    return Field(default=option.default, description=option.metadata["help"])


class ReadingConfig(BaseModel):
    """The fields of `ReadingOptions`; those that are not set are not written to files."""

    period: str | None = _field("period")
    repeat: RepeatPolicy | None = _field("repeat")
    columns: Mapping[str, str] | None = _field("columns")
    separator: str | None = _field("separator")
    dates: str | None = _field("dates")
    noun: str | None = _field("noun")
    person: str | None = _field("person")
    verb: str | None = _field("verb")
    keep_bots: bool = _field("keep_bots")
    keep_outliers: bool = _field("keep_outliers")
    clusters: int | None = _field("clusters")
    redact: bool = _field("redact")

    @property
    def reading(self) -> ReadingOptions:
        """How the log is read."""
        return ReadingOptions.from_values(vars(self))

    @field_validator(*READING_FIELDS, mode="before")
    @classmethod
    def _parse_option(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        return value if value is None else READING_FIELDS[name].metadata["parse"](value)

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A run of an earlier version goes on: its stored config has none of these fields.
        return {n: value for n, value in dump(self).items() if value or n not in READING_FIELDS}
