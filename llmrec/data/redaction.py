"""Mail addresses, numbers of people, and given names, replaced in titles and category names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_folder, atomic_write_text
from llmrec.data.names import clean_text, shorten_names, undo_entities
from llmrec.data.report import Finding
from llmrec.data.validation import CATEGORIES, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID

COUNTS_FILE = "redacted.json"  # in a folder that `save_redacted` wrote: how often by kind
MIN_DIGITS, MAX_DIGITS = 7, 15  # of a telephone number, its country's code included (E.164)
MIN_NUMBER_DIGITS = 9  # of groups of digits that are no telephone number
_GAP = r"[ .()/-]{0,2}"  # between the digits of a telephone number


class _Kind(NamedTuple):
    """What is replaced by its name in parentheses, if a check does not refuse what was found."""

    name: str
    pattern: re.Pattern[str]
    is_one: Callable[[str], bool] = bool


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _is_card(text: str) -> bool:
    """Whether the digits have the check digit of a card's number (Luhn, ISO/IEC 7812)."""
    digits = [int(digit) for digit in reversed(_digits(text))]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[1::2]]
    return 13 <= len(digits) <= 19 and sum(digits[::2] + doubled) % 10 == 0


def _is_account(text: str) -> bool:
    """Whether a text has the check digits of an IBAN (ISO 13616)."""
    signs = text.replace(" ", "").upper()
    return int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    return MIN_DIGITS <= len(_digits(text)) <= MAX_DIGITS and not _are_years(text)


def _is_number(text: str) -> bool:
    is_one = text.isdigit() or len(_digits(text)) >= MIN_NUMBER_DIGITS
    return is_one and not _are_years(text)


def _are_years(text: str) -> bool:
    """Whether all groups of digits are years: "1999 2000 2001" is of a calendar."""
    return all(re.fullmatch(r"1\d{3}|20\d{2}", group) for group in re.findall(r"\d+", text))


_MAIL = r"[\w.+%-]{1,64}(?:@| ?[(\[] ?at ?[)\]] ?)(?:[\w-]{1,63}(?:\.| ?[(\[] ?dot ?[)\]] ?)){1,8}"
# In this order: an address of a page may hold a mail address, and a card is a long number, too.
_KINDS = (
    _Kind("url", re.compile(r"\b(?:(?:https?|ftp)://|www\.)\S*[\w/]", re.IGNORECASE)),
    _Kind("mail", re.compile(rf"{_MAIL}[^\W\d_]{{2,24}}\b", re.IGNORECASE)),
    _Kind("handle", re.compile(r"(?<![\w.@])@[A-Za-z_]\w{2,29}\b")),
    _Kind(
        "account",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.IGNORECASE),
        _is_account,
    ),
    _Kind("card", re.compile(r"(?<![\w+])\d(?:[ -]?\d){12,18}(?!\w)"), _is_card),
    _Kind(
        "phone",
        re.compile(
            rf"(?<![\w.])(?:(?:\+|00)[ ]?[1-9](?:{_GAP}\d){{6,13}}"  # with a country's code
            rf"|\(?0[1-9]\d{{0,4}}\)?(?:{_GAP}\d){{5,10}}"  # with the 0 of another place
            r"|\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4})(?!\w)"  # of North America
        ),
        _is_phone,
    ),
    _Kind("number", re.compile(r"(?<![\w.,])\d(?:[ -]?\d){6,}(?!\w|,\d)"), _is_number),
)
_NAME = "name"


MAX_CELL_LENGTH = 100_000  # of a cell, which may name many categories


@dataclass(frozen=True)
class Redactor:
    """Replaces what tells who somebody is: "call +49 30 1234567" is "call (phone)".

    Mail addresses, addresses of pages, @handles, IBANs, cards, telephone and other long numbers
    are found by their form. Years and prices stay. No name is found by itself, for titles are full
    of them ("Malcolm X"): give those of your people.

    Parameters
    ----------
    names
        Names that are replaced wherever they are a whole word, in upper or lower case.
    """

    names: Collection[str] = ()

    def __post_init__(self) -> None:
        words = sorted({clean_text(name) for name in self.names} - {""}, key=len, reverse=True)
        found = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
        object.__setattr__(self, "_kinds", (*_KINDS, *([_Kind(_NAME, found)] if words else [])))

    def redact(self, text: str, counts: Counter[str] | None = None) -> str:
        """Give a text with what was found replaced; ``counts`` has by kind how often."""
        for kind in self._kinds:  # type: ignore[attr-defined]

            def replacement(found: re.Match[str], kind: _Kind = kind) -> str:
                if not kind.is_one(found[0]):
                    return found[0]
                if counts is not None:
                    counts[kind.name] += 1
                return f"({kind.name})"

            text = kind.pattern.sub(replacement, text)
        return text

    def redact_dataset(self, dataset: Dataset) -> tuple[Dataset, Counter[str]]:
        """Give a dataset whose titles and category names hold none of it, and counts by kind.

        Ids stay: they are what people and items are looked up by.
        """
        counts: Counter[str] = Counter()
        catalog = self._redact_catalog(dataset.catalog, counts)
        rows = dataset.item_rows
        if rows is not None:
            said = [name for name in (TITLE, CATEGORIES) if name in rows]
            rows = rows.assign(**{name: rows[name].map(self._redact_cell) for name in said})
        findings = [
            Finding(f"a {kind} in titles and categories was replaced", n, effect="changed")
            for kind, n in sorted(counts.items())
        ]
        reading = (*dataset.reading, *findings)
        parts = {name: self.redact_dataset(part)[0] for name, part in dataset.parts.items()}
        found = replace(dataset, catalog=catalog, item_rows=rows, reading=reading, parts=parts)
        return found, counts

    def _redact_catalog(self, catalog: Catalog, counts: Counter[str]) -> Catalog:
        titles = tuple(self.redact(title, counts) for title in catalog.titles)
        names = [self.redact(name, counts) for name in catalog.categories]
        return replace(catalog, titles=titles, categories=tuple(shorten_names(names)))

    def _redact_cell(self, value: Any) -> Any:
        """Redact a text, or each text of a list; another value stays as it is."""
        if isinstance(value, str):
            return self.redact(clean_text(undo_entities(value), MAX_CELL_LENGTH))
        if isinstance(value, Iterable) and not isinstance(value, bytes | dict):
            return [self._redact_cell(part) for part in value]
        return value


def count_kinds(counts: Counter[str]) -> dict[str, int]:
    """Give how often each kind was replaced, those that were not too."""
    return {kind: counts[kind] for kind in (*(kind.name for kind in _KINDS), _NAME)}


def save_redacted(dataset: Dataset, counts: Counter[str], folder: Path) -> None:
    """Write a log as tables that `load_dataset` reads, and the counts beside; nothing may be there.

    Parquet, not CSV: a spreadsheet would run a title that begins with "=".
    """
    log, catalog = dataset.log, dataset.catalog
    starts = catalog.category_shares.indptr
    names = np.array(catalog.categories, dtype=object)[catalog.category_shares.indices]
    items = {
        ITEM_ID: catalog.item_ids,
        TITLE: catalog.titles,
        CATEGORIES: np.split(names, starts[1:-1]),
    }
    events = {
        USER_ID: log.user_ids[log.user_idx],
        ITEM_ID: log.item_ids[log.item_idx],
        TIMESTAMP: log.timestamp,
    }
    if log.rating is not None:
        events[RATING] = log.rating
    with atomic_folder(folder) as partial:
        pd.DataFrame(events).to_parquet(partial / "events.parquet", index=False)
        pd.DataFrame(items).to_parquet(partial / "items.parquet", index=False)
        atomic_write_text(partial / COUNTS_FILE, json.dumps(count_kinds(counts), indent=1))
