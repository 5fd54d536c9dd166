"""Trees as LightGBM's own text, which gives the same predictions to the bit."""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

from llmrec.errors import MissingExtraError, ModelLoadError


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
    if text_digest(text) != digest:  # of a text that was changed LightGBM may end the process
        raise ModelLoadError("the stored trees are cut off, changed or of another fit: fit again")
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
