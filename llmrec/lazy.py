"""Public names that a package hands on when they are first used, so that importing it is light."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any


def lazy_attributes(
    package: str, homes: Mapping[str, Sequence[str]], moved: Mapping[str, str] | None = None
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Give a package's ``__all__``, ``__getattr__`` and ``__dir__`` (PEP 562).

    Parameters
    ----------
    package
        Its name.
    homes
        Module to the names that the package hands on from it.
    moved
        Names that it handed on in version 0.1 to where they are now; such a name is an
        ImportError, so that ``from package import name`` says it, and not an AttributeError.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name in home:
            return getattr(import_module(home[name]), name)
        if moved and name in moved:
            raise ImportError(f"{package}.{name} of version 0.1 is {moved[name]}: import that")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    names = sorted(home)
    return names, get_attribute, lambda: names


class MovedModules(MetaPathFinder):
    """Comes after all other finders, and says where a module of version 0.1 is now.

    Parameters
    ----------
    modules
        Module of 0.1 to the module of today.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for a module that has moved; find none."""
        if fullname in self.modules:
            raise ModuleNotFoundError(
                f"{fullname} of version 0.1 is {self.modules[fullname]}: import that", name=fullname
            )
