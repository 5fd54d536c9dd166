"""The model card of an adapter: a README.md made from its adapter.json alone."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec.data.embedded import EMBEDDED_PARTS, GEMMA
from llmrec.data.files import atomic_write_text
from llmrec.data.names import clean_text
from llmrec.data.versions import CONFIG_KEYS, rename_keys
from llmrec.language.adapters import ADAPTER_FILE, AdapterMetadata

if TYPE_CHECKING:
    from jinja2 import Template


CARD_FILE, TEMPLATE_FILE = "README.md", "card.md.jinja"
MAX_LABELS, MAX_LETTERS = 30, 2_000
# What Markdown could read as markup; it does not with an underscore inside a word.
_MARKUP = re.compile(r"[\\|`*\[\]~$#]|(?<![^\W_])_|_(?![^\W_])")


def write_card(folder: Path) -> Path:
    """Write README.md beside a folder's adapter.json; return its path.

    Raises
    ------
    ModelLoadError
        If adapter.json is missing or broken.
    """
    path = folder / CARD_FILE
    atomic_write_text(path, render_card(AdapterMetadata.load(folder)))
    return path


def render_card(about: AdapterMetadata) -> str:
    """Give the card in GitHub's Markdown; whatever text from data holds, it is no markup there."""
    licences = {part.name: part.licence for part in (*EMBEDDED_PARTS, GEMMA)}
    return _load_template().render(
        about=about,
        file=ADAPTER_FILE,
        labels=about.labels[:MAX_LABELS],
        n_more=max(0, len(about.labels) - MAX_LABELS),
        terms=[(name, licences.get(name)) for name in (about.dataset, about.base_model)],
        config=_flatten(rename_keys(about.config, CONFIG_KEYS)),
        metrics=[(name, *_format_metric(value)) for name, value in _flatten(about.metrics)],
        versions=[f"{name} {version}" for name, version in about.versions.items()],
    )


@cache
def _load_template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Each value that the template prints goes through `_escape`: none can be forgotten.
    environment = Environment(
        loader=PackageLoader("llmrec.training", "."),
        undefined=StrictUndefined,
        finalize=_escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE_FILE)


def _flatten(values: Mapping[str, Any], group: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings: ("lora.rank", 16); a metric with its interval stays one value."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and "value" not in value:
            rows += _flatten(value, f"{group}{name}.")
        else:
            rows.append((f"{group}{name}", value))
    return rows


def _format_metric(value: Any) -> tuple[str, str]:
    """Format a metric and its interval, which is "" if there is none."""
    if not isinstance(value, Mapping):
        return _format_number(value), ""
    low, high = value.get("low"), value.get("high")
    bounds = [] if low is None or high is None else [_format_number(low), _format_number(high)]
    return _format_number(value["value"]), " to ".join(bounds)


def _format_number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _escape(value: Any) -> str:
    """Give a value as one line of text without markup in Markdown or HTML."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = html.escape(clean_text(str(value), MAX_LETTERS), quote=False)
    return _MARKUP.sub(lambda match: f"\\{match[0]}", text)
