"""New items at the end of a catalog."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmrec.data.catalog_growth import with_new_items
from tests.worlds import catalog


def test_new_items_have_the_known_ones_of_their_categories_and_no_features() -> None:
    old = catalog(10).with_features("image", np.ones((10, 3)))
    rows = pd.DataFrame(
        {
            "item_id": ["i003", "z", "y", "x", "z"],
            "title": ["Another title", "Z", "Y", None, "Z"],
            "categories": ["War", "War|Horror|Western", "Western", "Drama", "War|Horror|Western"],
        }
    )
    grown = with_new_items(old, rows)
    assert grown.item_ids.tolist() == [*old.item_ids, "z", "x"]
    assert grown.titles == (*old.titles, "Z", "x")
    assert grown.categories == old.categories
    assert grown.categories_of(10) == ("Horror", "War")
    shares = grown.category_shares.toarray()
    np.testing.assert_array_equal(shares[:10], old.category_shares.toarray())
    np.testing.assert_allclose(shares[10:].sum(axis=1), 1)
    assert np.isnan(grown.features["image"][10:]).all()
    np.testing.assert_array_equal(grown.features["image"][:10], old.features["image"])


def test_a_catalog_without_news_is_the_same_object() -> None:
    old = catalog(10)
    known = pd.DataFrame({"item_id": ["i003"], "categories": ["War"]})
    assert with_new_items(old, known) is old
