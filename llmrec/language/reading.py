"""From logits at the read slot to category scores: the mean logit of each name's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from llmrec.contracts import FloatArray, IntArray


class NameReadout:
    """A fixed (n_categories, n_tokens) matrix that averages the logits of each label's tokens.

    Nothing is trained, so it works for any number of categories, unseen ones included.

    Parameters
    ----------
    labels
        (n_categories,) labels, as they are written in prompts and lines.
    encode
        Texts to token ids, without special tokens: `LanguageModel.encode`. Labels are given to it
        with a space before them, as they stand in the middle of a sentence.

    Attributes
    ----------
    token_ids
        (n_tokens,) sorted, unique: the only logits that `scores` needs.

    Raises
    ------
    ValueError
        If there are no labels, or one has no tokens.
    """

    token_ids: IntArray

    def __init__(
        self, labels: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]
    ) -> None:
        if not labels:
            raise ValueError("a readout needs at least one label")
        rows = encode([f" {label}" for label in labels])
        lengths = np.array([len(row) for row in rows])
        if not lengths.all():
            empty = int(np.argmin(lengths))
            raise ValueError(f"label {empty} ({labels[empty]!r}) has no tokens: rename it")
        flat = np.fromiter((token for row in rows for token in row), np.int64, lengths.sum())
        self.token_ids, columns = np.unique(flat, return_inverse=True)
        # A token that occurs twice in a label counts twice: duplicates are summed.
        self._mean = sparse.coo_array(
            (np.repeat(1 / lengths, lengths), (np.repeat(np.arange(len(rows)), lengths), columns)),
            shape=(len(rows), len(self.token_ids)),
        ).tocsr()

    @property
    def matrix(self) -> FloatArray:
        """(n_categories, n_tokens) share of each token in each label."""
        return np.asarray(self._mean.toarray(), dtype=np.float64)

    def scores(self, logits: FloatArray) -> FloatArray:
        """Average the (n, n_tokens) logits of `token_ids` into (n, n_categories) scores."""
        return np.ascontiguousarray((self._mean @ logits.T).T, dtype=np.float64)


def centered(scores: FloatArray) -> FloatArray:
    """Subtract each row's mean from (n, n_categories) scores; softmax does not see it."""
    means: FloatArray = scores.mean(axis=1, keepdims=True)
    return scores - means
