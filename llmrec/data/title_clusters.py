"""Clusters of item texts as categories: fitted on some texts, named by terms, given to any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from llmrec.errors import DataError, MissingExtraError

TERMS_PER_NAME = 3  # of a cluster's name
DEFAULT_CLUSTERS = 150
TITLES_PER_CLUSTER = 5  # on average at least, where the number of clusters is not given


@dataclass(frozen=True, eq=False)
class TextClusters:
    """K-means over TF-IDF of texts. Build one with `fit`.

    Attributes
    ----------
    names
        (n_clusters,) the terms of largest weight in each centre.
    """

    names: tuple[str, ...]
    _vectorizer: Any = field(repr=False)
    _kmeans: Any = field(repr=False)

    @staticmethod
    def fit(texts: Sequence[str], n_clusters: int, seed: int = 0) -> TextClusters:
        """Find clusters of texts, in one thread: the same ones on every run.

        Raises
        ------
        DataError
            If there are fewer distinct texts than clusters, or no words at all.
        MissingExtraError
            Without scikit-learn.
        """
        return _fit_clusters(tuple(texts), n_clusters, seed)

    def assign(self, texts: Sequence[str]) -> list[str]:
        """Give each text the name of the cluster whose centre is nearest."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "openmp"):
            labels = self._kmeans.predict(self._vectorizer.transform(texts))
        return [self.names[label] for label in labels]


@dataclass(frozen=True, eq=False)
class TitleCategories:
    """Categories of a log whose items have titles alone: clusters of the titles of some time.

    Attributes
    ----------
    n_clusters
        How many are asked for; None: `DEFAULT_CLUSTERS`, fewer where there are few titles.
    clusters
        Those that are fitted; None: not yet.
    before
        The clusters are of the titles that the log names before this time; None: of all.
    """

    n_clusters: int | None = None
    clusters: TextClusters | None = None
    before: np.datetime64 | None = None

    def __post_init__(self) -> None:
        if self.n_clusters is not None and self.n_clusters < 1:
            raise DataError(f"{self.n_clusters} clusters are none: write a number from 1 on.")

    def is_known_before(self, cutoff: np.datetime64) -> bool:
        """Whether nothing that the clusters were fitted on is of the cutoff or later."""
        return self.clusters is not None and self.before is not None and bool(self.before <= cutoff)

    def fit(self, titles: Sequence[str], before: np.datetime64 | None) -> TitleCategories:
        """Give clusters of these (n_titles,) titles, which the log names before a time."""
        clusters = TextClusters.fit(titles, self._count(titles))
        return replace(self, clusters=clusters, before=before)

    def _count(self, titles: Sequence[str]) -> int:
        n_titles = len(set(titles))
        if self.n_clusters is not None:
            return min(self.n_clusters, n_titles)
        return min(DEFAULT_CLUSTERS, max(1, n_titles // TITLES_PER_CLUSTER))


@lru_cache(maxsize=8)  # a log is cut at the same few times again and again
def _fit_clusters(texts: tuple[str, ...], n_clusters: int, seed: int) -> TextClusters:
    try:
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError(
            "clustered categories need: pip install 'llmrec[clusters]'"
        ) from error

    if len(set(texts)) < n_clusters:
        raise DataError(f"{len(set(texts))} distinct texts cannot make {n_clusters} categories.")
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=20_000)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"the item texts hold no words to cluster by ({error}).") from error
    with threadpool_limits(1, "openmp"):
        kmeans = KMeans(n_clusters, n_init=3, random_state=seed).fit(weights)
    terms = vectorizer.get_feature_names_out()
    heaviest = np.argsort(-kmeans.cluster_centers_, axis=1, kind="stable")[:, :TERMS_PER_NAME]
    names = _number_repeated(["-".join(terms[row]) for row in heaviest])
    return TextClusters(tuple(names), vectorizer, kmeans)


def _number_repeated(names: Sequence[str]) -> list[str]:
    """Give the names, the second and later uses of one with a number."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result
