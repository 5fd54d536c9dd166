"""Without any extra - no torch, LightGBM, scikit-learn - engines are fitted, asked and served."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Modules that no core dependency brings cannot be imported, as if they were not installed.
BLOCKING = """
import sys
from importlib.abc import MetaPathFinder
missing = set(sys.argv[1].split(","))
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in missing else find_spec(name)
"""
COMMANDS = """
import json
from llmrec.cli import main
for command in json.loads(sys.argv[2]):
    sys.argv = ["llmrec", *command]
    print("==", *command, flush=True)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def core_distributions() -> set[str]:
    """Names of what `pip install llmrec` installs, llmrec itself among them."""
    found, ahead = set(), ["llmrec"]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            needed = [Requirement(one) for one in requires(name) or []]
            ahead += [
                canonicalize_name(one.name)
                for one in needed
                if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    return found


def missing_modules() -> set[str]:
    """Importable modules of this environment that the lean one does not have."""
    core = core_distributions()
    return {
        module
        for module, owners in packages_distributions().items()
        if core.isdisjoint(canonicalize_name(owner) for owner in owners)
    }


def run_lean(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    missing = ",".join(missing_modules())
    command = [sys.executable, "-c", BLOCKING + code, missing, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, n = np.random.default_rng(0), 4_000
    items = (rng.zipf(1.4, n) - 1) % 100
    seconds = np.sort(rng.integers(0, 250 * 86_400, n))
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(0, 80, n),
            "item_id": items,
            "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"),
            "title": [f"Item {item}" for item in items],
            "category": [f"Kind {item % 12}" for item in items],
        }
    )
    path = tmp_path_factory.mktemp("lean") / "log.parquet"
    frame.to_parquet(path)
    return path


def test_the_lean_install_has_neither_torch_nor_lightgbm_nor_scikit_learn() -> None:
    assert {"torch", "transformers", "peft", "lightgbm", "sklearn"} <= missing_modules()
    assert not {"numpy", "scipy", "pandas", "pyarrow", "llmrec"} & missing_modules()


def test_the_commands_run_without_any_extra(log_file: Path) -> None:
    data, engine, out = (str(log_file.parent / name) for name in ("log.parquet", "engine", "out"))
    of_person = ["--model", engine, "--data", data, "--user", "5"]
    commands = [
        ["check", data],
        ["fit", "--data", data, "--out", engine, "--effort", "quick"],
        ["info", engine],
        ["forecast", *of_person],
        ["recommend", *of_person, "-k", "3"],
        ["evaluate", "--data", data],
        ["batch", engine, "--data", data, "--out", out],
    ]
    found = run_lean(COMMANDS, json.dumps(commands))
    assert found.returncode == 0, found.stderr
    for command in commands:
        assert f"== {' '.join(command)}" in found.stdout
    assert "GatedMixture and LLM are left out: they need pip install" in found.stderr
    assert "RidgeAutoregression" in found.stdout
    lists = pd.read_parquet(log_file.parent / "out" / "recommendations")
    assert lists["user_id"].nunique() == 80


def test_an_engine_with_trees_says_what_it_needs_in_a_line() -> None:
    code = """
from llmrec import InterestEngine, LlmrecError
from llmrec.engine_folder import bundled_engine
try:
    InterestEngine.from_pretrained(str(bundled_engine("ml-100k")))
except LlmrecError as error:
    print(error)
"""
    found = run_lean(code)
    assert found.returncode == 0, found.stderr
    assert "pip install 'llmrec[trees]'" in found.stdout
