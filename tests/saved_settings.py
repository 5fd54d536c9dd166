"""Settings of saved engines that a test changes, with the hash that belongs to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmrec.data.files import with_values_hash


def change_settings(path: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Change the values of an engine.json as if it had been saved so; give what it now holds."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(with_values_hash(values)), encoding="utf-8")
    return values
