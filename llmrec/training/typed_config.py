"""A typed model read from YAML and from flags, with every mistake named."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llmrec.errors import MissingExtraError

try:
    import yaml
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

from llmrec.data.versions import CONFIG_KEYS, rename_keys
from llmrec.errors import DataError

Model = TypeVar("Model", bound=BaseModel)
# Types of fields whose flags are taken as they are written: "," and "|" are no YAML.
_TEXTS = (str, str | None, Mapping[str, str] | None)


class ConfigError(DataError):
    """A config that cannot be used; the message names file, field, value and what is allowed."""


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1, in which 1e-3 would be a text, with the numbers of YAML 1.2."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def argument_parser(model: type[BaseModel]) -> argparse.ArgumentParser:
    """Make a parser that knows ``--FIELD VALUE`` for every field; values are written as in YAML.

    A hyphen will do for an underscore, and a field that is true or false is set by its flag alone.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, field in _list_fields(model):
        default = "none" if field.is_required() else field.default
        flags = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        about = f"{field.description or ''} default: {default}".strip().replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(*flags, nargs="?", const="true", metavar="VALUE", help=about)
        else:
            parser.add_argument(*flags, metavar="VALUE", help=about)
    return parser


def load_typed(model: type[Model], path: Path, overrides: Sequence[str]) -> Model:
    """Read a YAML file as a model, and flags over it; ConfigError lists every mistake.

    Keys and flags may have the names of version 0.1 (`llmrec.data.versions.CONFIG_KEYS`).
    """
    values, flags = _read_yaml(path), _parse_flags(model, overrides)
    for old, new in CONFIG_KEYS.items():
        if old in values and new in values:
            raise ConfigError(f"{path}: {old} is the name that {new} had in 0.1: give one of them")
    values = rename_keys(values, CONFIG_KEYS)
    for name, value in flags.items():
        *groups, field = name.split(".")
        group = values
        for key in groups:
            group = group.setdefault(key, {})
            if not isinstance(group, dict):
                raise ConfigError(f"{path}: {key} is {group!r}; it should hold fields of its own")
        group[field] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = [_describe_mistake(model, one, str(path), flags) for one in error.errors()]
        raise ConfigError("\n".join(mistakes)) from error


def _list_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """List dotted names of the fields, and the fields, those of groups included."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _list_fields(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _YamlLoader)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is no YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} should hold `field: value` lines, not {values!r}")
    return values


def _parse_flags(model: type[BaseModel], overrides: Sequence[str]) -> dict[str, Any]:
    parser = argument_parser(model)
    parser.exit_on_error = False
    try:
        values, unknown = parser.parse_known_args([_rename_flag(text) for text in overrides])
    except argparse.ArgumentError as error:
        raise ConfigError(f"flag {error.argument_name}: {error.message}") from error
    if unknown:
        name = unknown[0].removeprefix("--").partition("=")[0]
        raise ConfigError(f"flag {unknown[0]!r} is unknown{_suggest_field(model, name)}")
    return {name: _parse_value(model, name, text) for name, text in vars(values).items()}


def _rename_flag(text: str) -> str:
    """Give a flag of version 0.1 its name of today: --lines.epochs is --generation.epochs."""
    return re.sub(r"^--([a-z_]+)", lambda name: f"--{CONFIG_KEYS.get(name[1], name[1])}", text)


def _parse_value(model: type[BaseModel], name: str, text: str) -> Any:
    if "." not in name and model.model_fields[name].annotation in _TEXTS:
        return text
    try:
        return yaml.load(text, _YamlLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"flag --{name} is {text!r}, which is no YAML value") from error


def _describe_mistake(
    model: type[BaseModel], mistake: Mapping[str, Any], path: str, flags: Mapping[str, Any]
) -> str:
    """Describe one error of pydantic: file or flag, field, value, and what is allowed."""
    name = ".".join(map(str, mistake["loc"]))
    flag = next((flag for flag in flags if name == flag or name.startswith(f"{flag}.")), None)
    where = f"flag --{flag}" if flag else path
    if mistake["type"] == "extra_forbidden":
        return f"{where}: no field is called {name!r}{_suggest_field(model, name)}"
    if mistake["type"] == "missing":
        return f"{where}: {name} is missing; write it, or --{name} VALUE"
    refusal = mistake.get("ctx", {}).get("error")
    if isinstance(refusal, DataError):
        return f"{where}: {refusal}" if flag else f"{where}: {name}: {refusal}"
    allowed = mistake["msg"].replace("Input should", "it should").replace("Value error,", "it")
    return f"{where}: {name} is {mistake['input']!r}; {allowed}"


def _suggest_field(model: type[BaseModel], name: str) -> str:
    names = [known for known, _ in _list_fields(model)]
    last = {known.rpartition(".")[2]: known for known in names}
    close = difflib.get_close_matches(name, names, 1) or [
        last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last, 1)
    ]
    return f"; is {close[0]!r} meant?" if close else f"; the fields are {', '.join(names)}"
