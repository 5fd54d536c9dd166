"""Typed models of settings, read from YAML, with a flag for every field."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llmrec.errors import DataError, MissingExtraError

try:
    import yaml
    from pydantic import BaseModel, ValidationError
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(DataError):
    """A config that cannot be used; the message names file, field, value and what is allowed."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, in which 1e-3 would be a text, with the numbers of YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def flags_of(model: type[BaseModel]) -> argparse.ArgumentParser:
    """Make a parser that knows ``--FIELD VALUE`` for every field; values are written as in YAML."""
    parser = argparse.ArgumentParser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, default in _fields(model):
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"default: {default}")
    return parser


def read_typed(model: type[Model], path: Path, overrides: Sequence[str]) -> Model:
    """Read a YAML file as a model, and flags over it; ConfigError tells every mistake."""
    values, flags = _read(path), _flags(model, overrides)
    for name, value in flags.items():
        *group, field = name.split(".")
        inner = values
        for key in group:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path}: {key} is {inner!r}; it should hold fields of its own")
        inner[field] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        told = [_told(model, fault, str(path), flags) for fault in error.errors()]
        raise ConfigError("\n".join(told)) from error


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List dotted names and defaults of the fields, those of groups included."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _fields(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if field.is_required() else field.default


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is no YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} should hold `field: value` lines, not {values!r}")
    return values


def _flags(model: type[BaseModel], overrides: Sequence[str]) -> dict[str, Any]:
    parser = flags_of(model)
    parser.exit_on_error = False
    try:
        found, strange = parser.parse_known_args(list(overrides))
    except argparse.ArgumentError as error:
        raise ConfigError(f"flag {error.argument_name}: {error.message}") from error
    if strange:
        name = strange[0].removeprefix("--").partition("=")[0]
        raise ConfigError(f"flag {strange[0]!r} is unknown{_near(model, name)}")
    return {name: _value(model, name, text) for name, text in vars(found).items()}


def _value(model: type[BaseModel], name: str, text: str) -> Any:
    if "." not in name and model.model_fields[name].annotation is str:
        return text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"flag --{name} is {text!r}, which is no YAML value") from error


def _told(
    model: type[BaseModel], fault: Mapping[str, Any], path: str, flags: Mapping[str, Any]
) -> str:
    """Say one fault that pydantic found as: where, field, value, what is allowed."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    flag = next((flag for flag in flags if name == flag or name.startswith(f"{flag}.")), None)
    where = f"flag --{flag}" if flag else path
    if fault["type"] == "extra_forbidden":
        return f"{where}: no field is called {name!r}{_near(model, name)}"
    if fault["type"] == "missing":
        return f"{where}: {name} is not given; write it, or --{name} VALUE"
    allowed = fault["msg"].replace("Input should", "it should").replace("Value error,", "it")
    return f"{where}: {name} is {fault['input']!r}; {allowed}"


def _near(model: type[BaseModel], name: str) -> str:
    names = [known for known, _ in _fields(model)]
    last = {known.rpartition(".")[2]: known for known in names}
    close = difflib.get_close_matches(name, names, 1) or [
        last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last, 1)
    ]
    return f"; is {close[0]!r} meant?" if close else f"; there is {', '.join(names)}"
