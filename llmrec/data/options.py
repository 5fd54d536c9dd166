"""How a log is read: one definition for commands, scripts and the configs of training."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from llmrec.data.calendar import PeriodLength
from llmrec.data.dataset import Dataset
from llmrec.data.names import clean_text
from llmrec.data.readers import load_dataset
from llmrec.data.times import DATE_KINDS, check_dates
from llmrec.data.validation import SHORT_NAMES
from llmrec.errors import DataError
from llmrec.types import RepeatPolicy

COLUMN_NAMES = {short: ours for ours, short in SHORT_NAMES.items()}
MAX_WORD_LENGTH = 60  # letters of what items and people are called


def parse_period(value: object) -> str:
    """Give a period length as it is written; DataError if it is none."""
    PeriodLength.parse(str(value))
    return str(value)


def parse_repeat(value: object) -> RepeatPolicy:
    """Give a policy for items already taken; DataError if there is none of this name."""
    for policy in get_args(RepeatPolicy):
        if value == policy:
            return policy  # type: ignore[no-any-return]
    raise DataError(f"{value!r} is no rule; write {' or '.join(get_args(RepeatPolicy))}.")


def parse_columns(value: object) -> dict[str, str]:
    """Give our names of columns to those of the tables, from a mapping or "user=..,item=..".

    A pair that holds a comma stands in double quotes.

    Raises
    ------
    DataError
        If a part is no pair, a name is none of ours, or two say the same column.
    """
    found: dict[str, str] = {}
    for ours, theirs in _column_pairs(value):
        name = COLUMN_NAMES.get(ours, ours)
        if name not in COLUMN_NAMES.values():
            known = ", ".join(COLUMN_NAMES)
            raise DataError(f"{ours!r} is none of our columns; they are {known}.")
        if name in found:
            raise DataError(f"{ours!r} is given twice: {found[name]!r} and {theirs!r}.")
        if theirs in found.values():
            raise DataError(f"{theirs!r} is given for two columns: write a name for each.")
        found[name] = theirs
    return found


def _column_pairs(value: object) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        pairs = [(str(ours), str(theirs)) for ours, theirs in value.items()]
    else:
        cut = [part.partition("=") for part in _split_at_commas(str(value))]
        pairs = [(ours.strip(), theirs) for ours, _, theirs in cut]
    if not pairs or not all(ours and theirs for ours, theirs in pairs):
        raise DataError(f"{value!r} says no columns; write user=NAME,item=NAME,time=NAME.")
    return pairs


def _split_at_commas(text: str) -> list[str]:
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:  # a line break
        raise DataError(f"{text!r} is not one line: {error}.") from error


def parse_separator(value: object) -> str:
    """Give what stands between the categories of a cell; DataError if it is nothing."""
    if not isinstance(value, str) or not value:
        raise DataError(f"{value!r} separates nothing; write a text such as '|' or ', '.")
    return value


def parse_dates(value: object) -> str:
    """Give how times are written: one of `DATE_KINDS`, or a format as strptime takes it."""
    check_dates(str(value))
    return str(value)


def parse_word(value: object) -> str:
    """Give a word that prompts and explanations use, clean; DataError if nothing is left."""
    if not (text := clean_text(value, MAX_WORD_LENGTH)):
        raise DataError(f"{value!r} is no word; write one such as films, viewer or watched.")
    return text


def parse_switch(value: object) -> bool:
    """Give a yes or no; DataError if it is neither."""
    if not isinstance(value, bool):
        raise DataError(f"{value!r} is neither true nor false.")
    return value


def parse_clusters(value: object) -> int:
    """Give a number of clusters; DataError if it is no whole number from 1 on."""
    text = str(value).strip()
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise DataError(f"{value!r} is no number of clusters; write a whole one from 1 on.")
    return int(text)


def _describe(parse: Callable[[Any], Any], metavar: str, help_text: str) -> dict[str, Any]:
    return {"parse": parse, "metavar": metavar, "help": help_text}


@dataclass(frozen=True)
class ReadingOptions:
    """How a log is read; what is None, or False, is as the log's own format has it.

    Attributes
    ----------
    period, repeat, noun, person, verb
        See `Dataset`.
    columns
        Our name of a column to the tables' name.
    separator
        What stands between the categories of a cell.
    dates
        How times are written: one of `DATE_KINDS`, or a format as strptime takes it.
    keep_bots, keep_outliers
        Whether rows stay that a rule would set aside.
    clusters
        How many clusters of titles are categories, of a layout without categories.
    redact
        Whether mail addresses and long numbers in titles and category names are replaced.

    Raises
    ------
    DataError
        If a value is not possible; the message has the value and the way out.
    """

    period: str | None = field(
        default=None,
        metadata=_describe(parse_period, "LENGTH", "How long a period is: 7D, 2W, 1M, '5 events'."),
    )
    repeat: RepeatPolicy | None = field(
        default=None,
        metadata=_describe(
            parse_repeat, "allow|exclude", "Whether items already taken may be listed again."
        ),
    )
    columns: Mapping[str, str] | None = field(
        default=None,
        metadata=_describe(
            parse_columns,
            "user=..,item=..",
            f"The log's names of columns; ours are {', '.join(COLUMN_NAMES)}.",
        ),
    )
    separator: str | None = field(
        default=None,
        metadata=_describe(
            parse_separator, "TEXT", "What stands between the categories of a cell."
        ),
    )
    dates: str | None = field(
        default=None,
        metadata=_describe(
            parse_dates,
            "HOW",
            "How times are written, where that is ambiguous: "
            f"{', '.join(DATE_KINDS)}, or a format such as %d.%m.%Y.",
        ),
    )
    noun: str | None = field(
        default=None,
        metadata=_describe(parse_word, "WORD", "What items are called, in the plural: films."),
    )
    person: str | None = field(
        default=None, metadata=_describe(parse_word, "WORD", "What people are called: viewer.")
    )
    verb: str | None = field(
        default=None,
        metadata=_describe(
            parse_word, "WORD", "What people did with items: taken, watched, bought, read."
        ),
    )
    keep_bots: bool = field(
        default=False,
        metadata=_describe(
            parse_switch, "", "Keep people with more events a day than a person can have."
        ),
    )
    keep_outliers: bool = field(
        default=False,
        metadata=_describe(parse_switch, "", "Keep events far from all others in time."),
    )
    clusters: int | None = field(
        default=None,
        metadata=_describe(
            parse_clusters,
            "N",
            "How many clusters of titles are categories, of Online Retail, which has none.",
        ),
    )
    redact: bool = field(
        default=False,
        metadata=_describe(
            parse_switch, "", "Replace mail addresses and telephone numbers in titles."
        ),
    )

    def __post_init__(self) -> None:
        for name, option in READING_FIELDS.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, option.metadata["parse"](getattr(self, name)))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ReadingOptions:
        """Take the options out of a mapping that may hold other things, too."""
        return cls(**{name: values[name] for name in READING_FIELDS if values.get(name)})

    def to_dict(self) -> dict[str, Any]:
        """Give the options that are set, as plain values for JSON."""
        return {name: value for name, value in vars(self).items() if value not in (None, False)}

    def with_defaults(self, other: ReadingOptions) -> ReadingOptions:
        """Give these options, and those of another where none is set here."""
        return ReadingOptions(**other.to_dict() | self.to_dict())

    def load(self, name: str | Path) -> Dataset:
        """Load a log, see `load_dataset`."""
        return load_dataset(name, **vars(self))


READING_FIELDS: dict[str, Field[Any]] = {option.name: option for option in fields(ReadingOptions)}


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options; `ReadingOptions.from_values` takes ``vars`` of its result."""
    group = parser.add_argument_group("how the log is read")
    for name, option in READING_FIELDS.items():
        flag, about = f"--{name.replace('_', '-')}", option.metadata
        explained = about["help"].replace("%", "%%")
        if option.default is False:
            group.add_argument(flag, action="store_true", help=explained)
            continue
        group.add_argument(
            flag,
            type=raising(argparse.ArgumentTypeError, about["parse"]),
            metavar=about["metavar"],
            help=explained,
        )


def raising(error: type[Exception], parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let a parser refuse with another error, of the same message, which a command line shows."""

    def parse_option(value: Any) -> Any:
        try:
            return parse(value)
        except DataError as refusal:
            raise error(str(refusal)) from refusal

    return parse_option
