"""The card of an adapter: a README.md made of what its adapter.json says, and nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec.data.catalog import clean_text
from llmrec.data.embedded import EMBEDDED_PARTS
from llmrec.data.files import atomic_write_text
from llmrec.language.adapters import ADAPTER_FILE, AdapterMetadata

if TYPE_CHECKING:
    from jinja2 import Template


CARD_FILE, TEMPLATE = "README.md", "card.md.jinja"
MAX_LABELS, MAX_LETTERS = 30, 2_000
# What Markdown could take for its own; an underscore inside a word is none.
_MARKUP = re.compile(r"[\\|`*\[\]~$#]|(?<![^\W_])_|_(?![^\W_])")


def write_card(folder: Path) -> Path:
    """Write README.md beside a folder's adapter.json, and give its path.

    Raises
    ------
    ModelLoadError
        If adapter.json is missing or broken.
    """
    path = folder / CARD_FILE
    atomic_write_text(path, render_card(AdapterMetadata.load(folder)))
    return path


def render_card(about: AdapterMetadata) -> str:
    """Write the card in GitHub's Markdown; text from data is text there, whatever is in it."""
    terms = {part.name: part.licence for part in EMBEDDED_PARTS}
    return _template().render(
        about=about,
        file=ADAPTER_FILE,
        labels=about.labels[:MAX_LABELS],
        n_more=max(0, len(about.labels) - MAX_LABELS),
        terms=[(name, terms.get(name)) for name in (about.dataset, about.base_model)],
        config=_rows(about.config),
        metrics=[(name, *_measured(value)) for name, value in _rows(about.metrics)],
        versions=[f"{name} {version}" for name, version in about.versions.items()],
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Each value that the template prints goes through `_plain`: none can be forgotten.
    environment = Environment(
        loader=PackageLoader("llmrec.training", "."),
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE)


def _rows(values: Mapping[str, Any], group: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings: ("lora.rank", 16); a measured value with its interval stays one."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and "value" not in value:
            found += _rows(value, f"{group}{name}.")
        else:
            found.append((f"{group}{name}", value))
    return found


def _measured(value: Any) -> tuple[str, str]:
    """Write a metric and its interval, the latter empty if none is given."""
    if not isinstance(value, Mapping):
        return _number(value), ""
    low, high = value.get("low"), value.get("high")
    interval = "" if low is None or high is None else f"{_number(low)} to {_number(high)}"
    return _number(value["value"]), interval


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    """Make a value one line of text that neither Markdown nor HTML reads as markup."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = html.escape(clean_text(str(value), MAX_LETTERS), quote=False)
    return _MARKUP.sub(lambda found: f"\\{found[0]}", text)
