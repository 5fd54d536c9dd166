"""Prompt templates: files of ``prompts/``, versioned by their names, rendered in a sandbox."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def prompts_folder() -> Path:
    """Where the templates are: inside the installed package, or beside it in a checkout."""
    installed = Path(str(resources.files("llmrec"))) / "prompts"
    return installed if installed.is_dir() else installed.parent.parent / "prompts"


@cache
def template(name: str) -> Template:
    """Give a template by its file's name without the ending; unknown variables are errors."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The output is a plain-text prompt, never HTML, so there is nothing to escape it for.
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(prompts_folder()), undefined=StrictUndefined, autoescape=False
    )
    return environment.get_template(f"{name}.jinja")
