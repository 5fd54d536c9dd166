"""Which layer may import which, how long files may get, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From left to right; a room imports from its own place or from places to its left. "" is llmrec
# itself, whose public names come from everywhere.
ORDER = (
    {"errors", "types", "lazy"},
    {"beta_binomial"},
    {"metrics", "impression_metrics"},
    {"data"},
    {"forecast"},
    {"language"},
    {"forecasters"},
    {"ranking"},
    {"explain"},
    {"engine_settings", "fit_store"},
    {"engine_folder"},
    {"engine_figures"},
    {"engine_info"},
    {"engine_members"},
    {"engine_fit"},
    {"engine_language"},
    {"engine_resolve"},
    {"engine_config"},
    {"engine_people"},
    {"engine_append"},
    {"engine_refit"},
    {"engine_forget"},
    {"session_inputs"},
    {"session"},
    {"engine"},
    {"evaluation"},
    {"training"},
    {""},
    {"person_timeline", "person_list", "person_hindsight"},
    {"person_view"},
    {"person_html"},
    {"widgets"},
    {"batch"},
    {"person_summary"},
    {"serve"},
    {"engine_removal"},
    {"forgetting"},
    {"cli", "__main__"},
)
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.glob("llmrec/**/*.py"))
}
SCRIPTS = [path for folder in ("finetune", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")]


def room(module: str) -> str:
    """Give the room of a module: "data" for "llmrec.data.catalog", "" for "llmrec"."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str, run_time_only: bool = False) -> set[str]:
    """List what a file imports at any level of nesting, submodules and names alike."""
    tree = ast.parse(source)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if run_time_only and node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def upward(module: str, source: str) -> set[str]:
    """List the imports of a module that point to its right."""
    ours = {name for name in imports(source) if name.split(".")[0] == "llmrec"}
    # `from llmrec import Catalog` is an import from llmrec itself, not from a room of that name.
    targets = {name: room(name) if room(name) in PLACE else "" for name in ours}
    return {name for name, target in targets.items() if PLACE[target] > PLACE[room(module)]}


def pickling(source: str) -> set[str]:
    """List the ways a file has of reading or writing pickles."""
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    found = {name for name in imports(source) if name.split(".")[0] in banned}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in {"read_pickle", "to_pickle"}:
            found.add(node.attr)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}:
            found.add(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.add("allow_pickle")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_room_imports_from_a_room_to_its_right(module: str) -> None:
    assert room(module) in PLACE, f"give {module} a place in ORDER"
    assert upward(module, MODULES[module].read_text()) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from llmrec.engine import InterestEngine", {"llmrec.engine.InterestEngine"}),
        ("def f():\n    import llmrec.ranking.blend", {"llmrec.ranking.blend"}),
        ("from llmrec import language", {"llmrec.language"}),
        ("from llmrec import Catalog", {"llmrec.Catalog"}),
        ("from llmrec.errors import DataError\nimport numpy", set()),
    ],
)
def test_an_import_to_the_right_is_found_wherever_it_stands(source: str, found: set[str]) -> None:
    assert upward("llmrec.data.catalog", source) == found


def circles(arrows: dict[str, set[str]]) -> set[frozenset[str]]:
    """Find the sets of modules that import each other, directly or by way of others."""
    reach = {module: set(targets) for module, targets in arrows.items()}
    for between in arrows:
        for targets in reach.values():
            if between in targets:
                targets |= reach[between]
    return {
        frozenset(other for other in targets if module in reach[other])
        for module, targets in reach.items()
        if module in targets
    }


def test_no_two_modules_import_each_other() -> None:
    arrows = {}
    for module, path in MODULES.items():
        named = imports(path.read_text())
        targets = {name if name in MODULES else name.rpartition(".")[0] for name in named}
        arrows[module] = targets & MODULES.keys() - {module}
    assert circles(arrows) == set()


def test_a_circle_of_modules_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}


def test_no_file_is_longer_than_350_lines_and_at_most_three_functions_than_60() -> None:
    paths = [*MODULES.values(), *SCRIPTS]
    long = {str(path.relative_to(ROOT)) for path in paths if len(path.open().readlines()) > 350}
    functions = [
        node.name
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long == set()
    assert len(functions) <= 3, functions


def test_one_file_alone_imports_transformers_peft_or_bitsandbytes_but_for_training() -> None:
    heavy = {"transformers", "peft", "bitsandbytes"}
    importing = {
        module
        for module, path in MODULES.items()
        if heavy & {name.split(".")[0] for name in imports(path.read_text(), run_time_only=True)}
    }
    others = {module for module in importing if room(module) != "training"}
    assert others <= {"llmrec.language.pretrained"}


def test_the_data_room_does_without_torch() -> None:
    sources = [path.read_text() for module, path in MODULES.items() if room(module) == "data"]
    assert "torch" not in {name.split(".")[0] for source in sources for name in imports(source)}


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS], ids=lambda path: path.stem)
def test_nothing_is_pickled(path: Path) -> None:
    assert pickling(path.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "frame.to_pickle(p)",
        "np.load(p, allow_pickle=1)",
    ],
)
def test_pickling_is_found(source: str) -> None:
    assert pickling(source)


def test_importing_llmrec_loads_no_torch_and_takes_less_than_half_a_second() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import llmrec; "
        "print(time.perf_counter() - start, 'torch' in sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert {torch for _, torch in runs} == {"False"}
    assert min(float(seconds) for seconds, _ in runs) < 0.5
