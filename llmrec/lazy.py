"""Public names that a package hands on when they are first used, so that importing it is light."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any

from llmrec.versions import MODULES, TOP_LEVEL, __version__


def lazy_attributes(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any]]:
    """Give a package's ``__all__`` and its ``__getattr__`` (PEP 562).

    Parameters
    ----------
    package
        Its name.
    homes
        Module to the names that the package hands on from it.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name in home:
            return getattr(import_module(home[name]), name)
        if package == "llmrec" and name in TOP_LEVEL:
            raise ImportError(
                f"llmrec.{name} of version 0.1 is {TOP_LEVEL[name]} in {__version__}: import that"
            )
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return sorted(home), get_attribute


class MovedModules(MetaPathFinder):
    """Comes after all other finders, and says where a module of version 0.1 is now."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for a module that has moved; find none."""
        if fullname in MODULES:
            raise ModuleNotFoundError(
                f"{fullname} of version 0.1 is {MODULES[fullname]} in {__version__}", name=fullname
            )
