"""The published Online Retail, whose path is in the environment variable LLMREC_ONLINE_RETAIL."""

from __future__ import annotations

import os

import numpy as np
import pytest

from llmrec.data import retail
from llmrec.data.check import check_dataset
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset

PATH = os.environ.get("LLMREC_ONLINE_RETAIL", "")
pytestmark = pytest.mark.skipif(
    not PATH, reason="LLMREC_ONLINE_RETAIL does not say where Online Retail is"
)
DROPPED = {
    retail.NO_CUSTOMER: 135_080,
    "line of postage or carriage": 1_346,
    "line of a fee or commission": 28,
    "manual entry, discount or adjustment": 542,
    "line of samples or packing": 4,
    retail.CANCELLATION: 7_484,
    retail.UNMATCHED: 1_055,
    retail.NO_PRICE: 33,
    retail.SAME_PURCHASE: 10_006,
    retail.TAKEN_BACK: 2_714,
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(PATH)


def test_every_line_of_the_published_log_is_accounted_for(dataset: Dataset) -> None:
    report = dataset.log.report
    assert report.rows_read == 541_909
    assert report.dropped == DROPPED
    assert (len(dataset.log), dataset.log.n_users) == (383_617, 4_324)
    assert (dataset.catalog.n_items, dataset.catalog.n_categories) == (3_659, 150)


def test_old_items_of_the_published_log_keep_their_clusters_whatever_comes_later(
    dataset: Dataset,
) -> None:
    cutoff = np.datetime64("2011-11-12", "ms")
    known, compared = dataset.known_before(cutoff), dataset.with_categories_before(cutoff)
    assert known.catalog.categories == compared.catalog.categories
    places = compared.catalog.item_ids.get_indexer(known.catalog.item_ids)
    assert known.catalog.n_items == 3_625
    shares = compared.catalog.category_shares[places] != known.catalog.category_shares
    assert shares.nnz == 0


def test_the_check_of_the_published_log_says_what_was_set_aside(dataset: Dataset) -> None:
    lines = [one.strip() for one in check_dataset(dataset).lines()]
    assert "158,292 of 541,909 rows left out" in lines
    assert any(one.startswith("7,484 rows dropped: cancellation of an earlier") for one in lines)
