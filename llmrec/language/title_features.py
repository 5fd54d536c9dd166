"""A block of features from the titles of items, by any encoder of texts, cached on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import cached_folder
from llmrec.data.item_features import FeatureMatrix
from llmrec.data.names import clean_text
from llmrec.errors import DataError
from llmrec.language.adapters import weights_fingerprint
from llmrec.language.encoder import TextEncoder
from llmrec.language.pretrained import DEFAULT_ENCODER

VECTORS_FILE = "vectors.safetensors"
_NAME_LETTERS = 40


def with_encoded_titles(dataset: Dataset, encoder: TextEncoder | str = DEFAULT_ENCODER) -> Dataset:
    """Give a dataset whose catalog has a block of features more: `embed_item_titles`.

    The block is called as the encoder is, without what stands before the last "/":
    "all-minilm-l6-v2". An engine that is fitted on the dataset tries scorers by it, and validation
    says what they add.

    Raises
    ------
    DataError, ModelLoadError, MissingExtraError, CacheError
        See `embed_item_titles`; if the catalog has such a block already.
    """
    encoder = TextEncoder.load(encoder) if isinstance(encoder, str) else encoder
    matrix = embed_item_titles(dataset.catalog, encoder)
    catalog = dataset.catalog.with_features(_block_name(encoder.name), matrix)
    return replace(dataset, catalog=catalog)


def embed_item_titles(
    catalog: Catalog, encoder: TextEncoder | str = DEFAULT_ENCODER
) -> FeatureMatrix:
    """(n_items, d) unit vectors of the titles of a catalog's items, for `Catalog.with_features`.

    NaN for an item without a title (its id stands in its place), or with no letter or digit in it.
    Titles are embedded once: the vectors are cached by a hash of the titles and of the encoder, in
    the folder that $LLMREC_CACHE names.

    Parameters
    ----------
    encoder
        What it is, or a name that `TextEncoder.load` knows: "all-minilm-l6-v2" (embedded), a local
        folder, or a hub id.

    Raises
    ------
    DataError
        If fewer than two titles differ: their vectors would say nothing.
    ModelLoadError, MissingExtraError
        See `TextEncoder.load`.
    CacheError
        If the cache cannot be read or written.
    """
    ids = (clean_text(item_id) for item_id in catalog.item_ids)
    told = np.array(
        [title != one and _has_word(title) for title, one in zip(catalog.titles, ids, strict=True)]
    )
    titles, places = np.unique(np.array(catalog.titles, dtype=object)[told], return_inverse=True)
    if len(titles) < 2:
        found = f"all are {titles[0]!r}" if len(titles) else "no item has one"
        raise DataError(
            f"of {catalog.n_items:,} items no two titles differ ({found}): vectors of them would "
            "say nothing. Map the column of the titles, or fit without an encoder."
        )
    encoder = TextEncoder.load(encoder) if isinstance(encoder, str) else encoder
    vectors = _cached_vectors(list(titles), encoder)
    matrix = np.full((catalog.n_items, vectors.shape[1]), np.nan, dtype=np.float32)
    matrix[told] = vectors[places]
    return matrix


def _cached_vectors(texts: Sequence[str], encoder: TextEncoder) -> FeatureMatrix:
    """(n_texts, d) float32 vectors, from the cache if these texts were embedded before."""
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str()
    parts = weights_fingerprint(encoder.model), tokenizer, json.dumps(texts)
    key = hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
    folder = cached_folder(f"titles-{key}", (), partial(_embed_to, encoder, texts))
    vectors: FeatureMatrix = load_file(folder / VECTORS_FILE)["vectors"]
    return vectors


def _embed_to(encoder: TextEncoder, texts: Sequence[str], folder: Path) -> None:
    vectors = np.ascontiguousarray(encoder.embed(texts), dtype=np.float32)
    save_file({"vectors": vectors}, folder / VECTORS_FILE)


def _has_word(title: str) -> bool:
    return any(map(str.isalnum, title))


def _block_name(encoder: str) -> str:
    """Call a block as an encoder, with what `Catalog.with_features` takes."""
    letters = re.sub(r"[^\w-]", "-", Path(encoder).name).strip("-_")
    return letters[:_NAME_LETTERS] or "encoder"
