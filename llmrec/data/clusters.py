"""Categories for catalogs that have none: clusters of item texts, named by their terms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.errors import DataError, MissingExtraError

TERMS_PER_NAME = 3


def cluster_names(texts: Sequence[str], n_categories: int, seed: int = 0) -> list[str]:
    """Give each text the name of its cluster.

    TF-IDF, k-means with ``seed``, and the three terms of largest weight in a cluster's centre.

    Raises
    ------
    DataError
        If there are fewer distinct texts than clusters, or no words at all.
    MissingExtraError
        Without scikit-learn.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise MissingExtraError(
            "clustered categories need: pip install 'llmrec[clusters]'"
        ) from error

    if len(set(texts)) < n_categories:
        raise DataError(f"{len(set(texts))} distinct texts cannot make {n_categories} categories.")
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=20_000)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"the item texts hold no words to cluster by ({error}).") from error
    clusters = KMeans(n_categories, n_init=3, random_state=seed).fit(weights)
    terms = vectorizer.get_feature_names_out()
    heaviest = np.argsort(-clusters.cluster_centers_, axis=1, kind="stable")[:, :TERMS_PER_NAME]
    names = _distinct(["-".join(terms[row]) for row in heaviest])
    return [names[label] for label in clusters.labels_]


def _distinct(names: list[str]) -> list[str]:
    """Give the names, the second and later uses of one numbered."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result
