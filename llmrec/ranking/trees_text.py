"""Trees as LightGBM's own text, which gives the same predictions to the bit."""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Mapping
from typing import Any

from llmrec.errors import MissingExtraError, ModelLoadError

_OF_NODES = (
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"),
    *("internal_value", "internal_weight", "internal_count"),
)
_OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")


def import_lightgbm() -> Any:
    """Give the package; MissingExtraError, with the pip command, where it is not installed."""
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        raise MissingExtraError(
            "a GBDTReranker needs the package lightgbm: pip install 'llmrec[trees]'"
        ) from error


def text_digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def read_trees(text: str, digest: str, n_features: int) -> Any:
    """Make a LightGBM booster of its text.

    Raises
    ------
    MissingExtraError
        If the package ``lightgbm`` is not installed.
    ModelLoadError
        If the text is not that of the digest, is none of LightGBM, or its trees expect another
        number of features.
    """
    lightgbm = import_lightgbm()
    if text_digest(text) != digest:  # changed since
        raise ModelLoadError("the stored trees are cut off, changed or of another fit: fit again")
    try:
        _check_trees(text)
    except (ValueError, KeyError) as error:
        raise ModelLoadError(
            f"the stored trees are no text of LightGBM: {error}; fit again"
        ) from error
    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise ModelLoadError(f"the stored trees are no text of LightGBM: {error}") from error
    if booster.num_feature() != n_features:
        raise ModelLoadError(
            f"the stored trees expect {booster.num_feature()} features, not {n_features}: "
            "they are of other scorers, or of another version"
        )
    return booster


def _check_trees(text: str) -> None:
    """Raise ValueError or KeyError for a text of which LightGBM would end the process.

    It believes what a text says of lengths, and follows its branches wherever they lead.
    """
    head, *trees = text.partition("end of trees")[0].split("Tree=")
    values = _read_lines(head)
    sizes = [int(size) for size in values["tree_sizes"].split()]
    if not trees or sizes != [len(f"Tree={tree}".encode()) for tree in trees]:
        raise ValueError("their sizes are not those of the text")
    n_features = int(values["max_feature_idx"]) + 1
    if not 0 < n_features <= len(head):
        raise ValueError(f"max_feature_idx is {n_features - 1}")
    for name in ("feature_names", "feature_infos"):
        if len(values[name].split(" ")) != n_features:
            raise ValueError(f"{name} are not {n_features}")
    if (values["num_class"], values["num_tree_per_iteration"]) != ("1", "1"):
        raise ValueError("they are of several classes")
    for tree in trees:
        _check_tree(_read_lines(tree), n_features)


def _read_lines(text: str) -> dict[str, str]:
    pairs = [line.partition("=")[::2] for line in text.splitlines() if line]
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _check_tree(values: Mapping[str, str], n_features: int) -> None:
    n_leaves = int(values["num_leaves"])
    n_nodes = n_leaves - 1
    if values["num_cat"] != "0" or values.get("is_linear", "0") != "0":
        raise ValueError("a tree is not of plain numbers")
    for name in (*_OF_NODES, *_OF_LEAVES):
        found = [float(number) for number in values.get(name, "").split()]
        expected = n_nodes if name in _OF_NODES else n_leaves
        is_optional = n_leaves == 1 and name != "leaf_value"
        if len(found) != expected and not (is_optional and len(found) <= 1):
            raise ValueError(f"{name} has {len(found)} numbers, not {expected}")
        if name == "leaf_value" and not all(map(math.isfinite, found)):
            raise ValueError(f"a number of {name} is not finite")
    if n_leaves < 2:
        return
    if not all(0 <= int(number) < n_features for number in values["split_feature"].split()):
        raise ValueError("a split is by no feature")
    pairs = zip(values["left_child"].split(), values["right_child"].split(), strict=True)
    children = [(node, int(child)) for node, pair in enumerate(pairs) for child in pair]
    if sorted(child for _, child in children) != [*range(-n_leaves, 0), *range(1, n_nodes)]:
        raise ValueError("its branches do not reach each node and leaf once")
    if any(0 <= child <= node for node, child in children):  # LightGBM numbers them as they grow
        raise ValueError("its branches lead back")
