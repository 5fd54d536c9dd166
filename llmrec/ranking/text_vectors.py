"""Unit vectors of item titles, or of features, and what is nearest to each: new items have them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from scipy import linalg, sparse

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.ranking.largest import largest_of_rows
from llmrec.ranking.scorers import item_counts
from llmrec.ranking.text_projection import MIN_LENGTH, Projection, Vectors, project_vectors
from llmrec.types import BoolArray, FloatArray

DIMENSIONS = 384  # of the singular value decomposition
HALF_TRUST = 20.0  # people
_EXTRA_DIRECTIONS, _POWER_ITERATIONS = 10, 3  # of the random projection
MAX_TELLING = 10_000  # items that tell others something by their titles
_ROWS_PER_BATCH = 500  # bounds the cosines held in memory
# Thai to Burmese, Khmer, kana, and the characters of Chinese: written without spaces.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_ASCII_WORD = re.compile("[a-z0-9]+")
# The last of each catalog by what they depend on, as several scorers ask for the same.
_VECTORS: WeakKeyDictionary[Catalog, tuple[object, tuple[Any, FloatArray | None]]] = (
    WeakKeyDictionary()
)


class TitleEncoder(Protocol):
    """Turns texts into vectors, as `llmrec.language.encoder.TextEncoder` does."""

    @property
    def name(self) -> str:
        """A name that ``TextEncoder.load`` knows, where the scorer is to be fitted again."""
        ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(n_texts, d) vectors, each independent of the other texts."""
        ...


def title_vectors(
    catalog: Catalog,
    taken: sparse.csr_array,
    *,
    encoder: TitleEncoder | str | None = None,
    projection: Projection = "none",
    features: str | None = None,
) -> Vectors:
    """(n_items, d) unit vectors of a catalog's titles, or of a block of its features.

    They are zeros for a title without a known word, and for an item without features. Everything
    is fitted on the items that were taken alone: the words and how rare they are, the singular
    vectors, the mean and the projection.

    Parameters
    ----------
    taken
        (n_sets, n_items) 1 for the items that somebody took at about one time: see `sets_taken`.
    encoder
        Turns titles into vectors; a name: loaded by ``TextEncoder.load``. None: `tfidf_vectors`.
    projection
        See `project_vectors`.
    features
        Name of a block of ``catalog.features``, of which the vectors are in place of the titles'.

    Raises
    ------
    DataError
        If the catalog has no such features.
    """
    known = taken.sum(axis=0) > 0
    if features is not None:
        return project_vectors(_feature_vectors(catalog, known, features), taken, projection)
    return project_vectors(_text_vectors(catalog, known, encoder), taken, projection)


def require_source(encoder: TitleEncoder | str | None, features: str | None) -> None:
    """Raise ValueError for vectors that would be of titles and of features."""
    if encoder is not None and features is not None:
        raise ValueError(f"an encoder is of titles: leave it out, or features={features!r}")


def name_by_source(features: str | None, rest: str) -> str:
    """Give a scorer's name in explanations: "titled like ...", or by the block's name."""
    return f"{'titled' if features is None else features} like {rest}"


def tfidf_vectors(titles: Sequence[str], known: BoolArray) -> FloatArray:
    """(n_titles, d) singular vectors of TF-IDF weights, fitted on the known titles.

    A word's weight is (1 + log count) * (1 + log((1 + n) / (1 + titles with it))), in rows of
    length 1 (Salton and Buckley 1988, as scikit-learn has it); words of no known title are left
    out. Latent semantic analysis of them: Deerwester et al. 1990.
    """
    weights, directions = _weights_and_directions(titles, known)
    return np.asarray(weights @ directions)


def words_of(title: str) -> list[str]:
    """Give the words of a title in lower case, in any script.

    Words are runs of letters, marks and digits. A run in a script written without spaces gives its
    pairs of characters.
    """
    if title.isascii():  # the same, in a tenth of the time
        return _ASCII_WORD.findall(title.lower())
    text = unicodedata.normalize("NFKC", title).casefold()
    kept = (char if unicodedata.category(char)[0] in "LMN" else " " for char in text)
    words = []
    for run in "".join(kept).split():
        if _UNSPACED.search(run):
            words += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
        else:
            words.append(run)
    return words


def takers_of(histories: Sequence[History]) -> FloatArray:
    """(n_items,) people who took each item."""
    taken = item_counts(histories)
    return np.bincount(taken.indices, minlength=taken.shape[1]).astype(np.float64)


def trust_of(takers: FloatArray) -> FloatArray:
    """(n_items,) how much is known of an item by its takers: takers / (takers + `HALF_TRUST`)."""
    return np.asarray(takers / (takers + HALF_TRUST))


def nearest_titles(
    vectors: Vectors, trust: FloatArray, temperature: float, neighbours: int
) -> sparse.csr_array:
    """(n_items, n_items) float32 shares of what an item (row) is told by its nearest titles.

    Shares are of trust_j * exp((cos_ij - 1) / temperature) among all other items j; the
    ``neighbours`` largest of a row are kept, so a row sums to at most 1. No item without a vector
    has or is a neighbour, and of a large catalog the `MAX_TELLING` most trusted items alone are.

    Parameters
    ----------
    trust
        (n_items,) >= 0, see `trust_of`; an item with 0 is nobody's neighbour.
    """
    has_vector = np.asarray(vectors.any(axis=1))
    trust = trust * has_vector
    telling = np.arange(len(vectors), dtype=np.int32)
    if np.count_nonzero(trust) > MAX_TELLING:
        telling = np.sort(np.argsort(-trust, kind="stable")[:MAX_TELLING]).astype(np.int32)
    column = np.full(len(vectors), -1)
    column[telling] = np.arange(len(telling))
    blocks, of_telling = [], vectors[telling].T
    for start in range(0, len(vectors), _ROWS_PER_BATCH):
        rows = np.arange(start, min(start + _ROWS_PER_BATCH, len(vectors)))
        weights = np.exp((vectors[rows] @ of_telling - 1.0) / temperature) * trust[telling]
        tells = np.flatnonzero(column[rows] >= 0)
        weights[tells, column[rows[tells]]] = 0.0
        weights[~has_vector[rows]] = 0.0
        totals = weights.sum(axis=1, keepdims=True)
        weights /= np.where(totals > 0, totals, 1.0)
        blocks.append(largest_of_rows(weights.astype(np.float32), neighbours))
    found = sparse.csr_array(sparse.vstack(blocks))
    entries = (found.data, telling[found.indices], found.indptr)
    return sparse.csr_array(entries, shape=(len(vectors), len(vectors)))


def averages_by_title(
    nearest: sparse.csr_array, trust: FloatArray, values: FloatArray
) -> FloatArray:
    """(n_items, ...) averages of items' values over their nearest titles.

    What is missing of a row of `nearest_titles` to 1 is the average over all items by trust: an
    item without a vector gets that alone.

    Parameters
    ----------
    values
        (n_items, ...) a value, or several, of each item.
    """
    usual = (trust / trust.sum()) @ values
    rest = np.maximum(1.0 - np.asarray(nearest.sum(axis=1), dtype=np.float64).ravel(), 0.0)
    return np.asarray(nearest @ values + np.multiply.outer(rest, usual))


def _weights_and_directions(
    titles: Sequence[str], known: BoolArray
) -> tuple[sparse.csr_array, FloatArray]:
    """(n_titles, n_words) and (n_words, d): `tfidf_vectors` is their product."""
    weights = _word_weights(titles, known)
    if not weights.shape[1]:
        return sparse.csr_array((len(titles), 1)), np.zeros((1, 1))
    return weights, _singular_vectors(weights[known], DIMENSIONS)


def _word_weights(titles: Sequence[str], known: BoolArray) -> sparse.csr_array:
    """(n_titles, n_words) TF-IDF weights of the words and pairs of words of the known titles."""
    terms = [_terms(title) for title in titles]
    of_known = {term for row in np.flatnonzero(known) for term in terms[row]}
    place = {term: column for column, term in enumerate(sorted(of_known))}
    rows = np.repeat(np.arange(len(titles)), [len(row) for row in terms])
    columns = np.array([place.get(term, -1) for row in terms for term in row], dtype=np.int64)
    kept = columns >= 0
    entries = (np.ones(int(kept.sum())), (rows[kept], columns[kept]))
    counts = sparse.csr_array(entries, shape=(len(titles), len(place)))  # sums repeated words
    n_with = np.bincount(counts[known].indices, minlength=len(place))
    rarity = 1.0 + np.log((1.0 + known.sum()) / (1.0 + n_with))
    counts.data = (1.0 + np.log(counts.data)) * rarity[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)))
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(lengths, MIN_LENGTH)) @ counts)


def _singular_vectors(rows: sparse.csr_array, n: int) -> FloatArray:
    """(n_columns, n) right singular vectors of the largest values, fewer of a small matrix.

    By random projection with power iterations (Halko et al. 2011, algorithms 4.4 and 5.1).
    """
    size = min(n + _EXTRA_DIRECTIONS, *rows.shape)
    start = np.random.default_rng(0).normal(size=(rows.shape[1], size))
    basis = linalg.qr(rows @ start, mode="economic")[0]
    for _ in range(_POWER_ITERATIONS):
        basis = linalg.qr(rows @ (rows.T @ basis), mode="economic")[0]
    vectors = linalg.svd((rows.T @ basis).T, full_matrices=False)[2]
    return np.asarray(vectors[:n].T)


def _terms(title: str) -> list[str]:
    """Words of a title, and pairs of words that follow one another."""
    words = words_of(title)
    return [*words, *map(" ".join, pairwise(words))]


def _text_vectors(
    catalog: Catalog, known: BoolArray, encoder: TitleEncoder | str | None
) -> FloatArray:
    """(n_items, d) vectors of titles before projection; an encoder's are of all cutoffs."""
    key = (encoder, None if encoder else known.tobytes())
    stored = _VECTORS.get(catalog)
    if stored is None or stored[0] != key:
        stored = None
        _VECTORS.pop(catalog, None)  # as large as what takes its place: never both
        stored = _VECTORS[catalog] = key, _smaller_form(catalog, known, encoder)
    left, right = stored[1]
    return left.copy() if right is None else np.asarray(left @ right)


def _smaller_form(
    catalog: Catalog, known: BoolArray, encoder: TitleEncoder | str | None
) -> tuple[Any, FloatArray | None]:
    """Give the vectors before projection; two factors of them where there are fewer words."""
    if encoder is None:
        weights, directions = _weights_and_directions(catalog.titles, known)
        if len(directions) < catalog.n_items:
            return weights, directions
        return np.asarray(weights @ directions), None
    found = _load_encoder(encoder).embed(catalog.titles)
    return found * np.array([bool(words_of(title)) for title in catalog.titles])[:, None], None


def _feature_vectors(catalog: Catalog, known: BoolArray, name: str) -> FloatArray:
    """(n_items, d) features over the root mean square of their lengths; 0 where there are none."""
    if name not in catalog.features:
        found = ", ".join(map(repr, catalog.features)) or "none"
        raise DataError(
            f"the catalog has no features {name!r} (it has {found}): add them by "
            "Catalog.with_features."
        )
    vectors = np.nan_to_num(catalog.features[name].astype(np.float64), nan=0.0)
    squares = (vectors[known] ** 2).sum(axis=1)
    usual = np.sqrt(squares[squares > 0].mean()) if squares.any() else 1.0
    return np.asarray(vectors / usual)


def _load_encoder(encoder: TitleEncoder | str) -> TitleEncoder:
    if not isinstance(encoder, str):
        return encoder
    from llmrec.language.encoder import TextEncoder

    return TextEncoder.load(encoder)
