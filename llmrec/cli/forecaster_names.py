"""Names of forecasters, as commands take them."""

from __future__ import annotations

from llmrec.cli.render import print_remark
from llmrec.engine_language import is_llm_installed
from llmrec.errors import DataError

NUMERIC_NAMES = ("LastPeriod", "RidgeAutoregression")
NET_NAMES = ("GatedMixture", "LLM")


def default_names() -> list[str]:
    """Give the forecasters that are compared by default, as far as their packages are there."""
    if is_llm_installed():
        return [*NUMERIC_NAMES, *NET_NAMES]
    print_remark(f"{' and '.join(NET_NAMES)} are left out: they need pip install 'llmrec[llm]'")
    return list(NUMERIC_NAMES)


def read_names(forecasters: str) -> list[str]:
    """Split a list of forecasters; DataError names those that do not exist."""
    from llmrec.forecasters.registry import BUILDERS

    known = [*BUILDERS, "LLM"]
    names = known if forecasters == "all" else [name.strip() for name in forecasters.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise DataError(f"no forecaster is called {wrong[0]!r}; choose from {', '.join(known)}")
    return names
