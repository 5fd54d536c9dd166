from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import InterestEngine
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset
from llmrec.data.windows import holdout_cutoff
from llmrec.errors import DataError
from llmrec.evaluation import impressions as module
from llmrec.evaluation.impressions import (
    compare_on_impressions,
    evaluate_impressions,
    summarize_impressions,
)
from llmrec.impression_metrics import IMPRESSION_METRICS
from llmrec.ranking.item_item import Ease, ItemToItem
from llmrec.ranking.scorers import RecentPopularity
from llmrec.ranking.text_ease import EaseByText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from tests.data.log_files import write_files
from tests.news_log import BestOrder, news_dataset, write_news_log

NEWS = "".join(f"N{n}\t{'AB'[n % 2]}\tsub\tTitle {n}\t\t\n" for n in range(6))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return news_dataset(tmp_path_factory.mktemp("news"))


@pytest.fixture(scope="module")
def cutoff(dataset: Dataset) -> np.datetime64:
    return holdout_cutoff(dataset.log, dataset.period) - np.timedelta64(12, "h")


def means(scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Model to the means of its metrics."""
    found: Any = scores.groupby("model")[list(IMPRESSION_METRICS)].mean().T.to_dict()
    return found


def test_the_best_order_is_exactly_one_and_popularity_is_less(dataset: Dataset) -> None:
    found = evaluate_impressions({"best": BestOrder(), "popular": RecentPopularity()}, dataset)
    best = found[found["model"] == "best"]
    measured = best[best["auc"].notna()]
    assert (measured[["auc", "ndcg@5", "ndcg@10"]] == 1).all(axis=None)
    expected = [np.mean(1 / np.arange(1, clicks + 1)) for clicks in measured["clicked"]]
    np.testing.assert_allclose(measured["mrr"], expected)
    by_model = means(found)
    for metric in IMPRESSION_METRICS:
        assert by_model["popular"][metric] < by_model["best"][metric] - 0.1
    assert by_model["popular"]["auc"] > 0.6  # half of the readers share a topic


def test_titles_rank_what_nobody_has_clicked_before_and_popularity_cannot(
    dataset: Dataset, cutoff: np.datetime64
) -> None:
    hours = RecentPopularity(0.25, 0.1)  # items live for hours, and so does what is popular
    titles = TitleKernel().fit(dataset.log, dataset.catalog, cutoff)
    models = {"titles": titles, "popular": hours}
    found = evaluate_impressions(models, dataset, since=cutoff)
    new = means(found[found["is_new"]])
    assert found["is_new"].sum() > 20
    assert new["titles"]["auc"] > 0.95 > 0.5 > new["popular"]["auc"]
    whole = means(found)
    assert whole["titles"]["auc"] > whole["popular"]["auc"] + 0.1


def test_weights_carried_by_titles_rank_new_items_and_those_of_ids_do_not(
    dataset: Dataset, cutoff: np.datetime64
) -> None:
    fits = {"titles": ItemToItem(EaseByText()), "ids": ItemToItem(Ease())}
    models = {name: one.fit(dataset.log, dataset.catalog, cutoff) for name, one in fits.items()}
    found = evaluate_impressions(models, dataset, since=cutoff)
    auc = {name: values["auc"] for name, values in means(found[found["is_new"]]).items()}
    assert auc["titles"] > 0.95 > 0.6 > auc["ids"]


def test_popularity_of_titles_tells_items_apart_that_nobody_has_clicked(tmp_path: Path) -> None:
    words = ("goal league", "goal coach", "oven butter", "oven garlic", "goal cup", "oven salt")
    news = "".join(f"N{n}\tA\tsub\t{title}\t\t\n" for n, title in enumerate(words))
    rows = [f"U{n}\t11/12/2019 9:0{n}:00 AM\t\tN{n % 2}-1 N2-0\n" for n in range(8)]
    rows += ["V\t11/12/2019 9:10:00 AM\t\tN2-1 N3-1\n"]
    rows += ["W\t11/12/2019 10:00:00 AM\t\tN4-1 N5-0\n"]
    dataset = load_dataset(
        write_files(tmp_path, {"news.tsv": news, "behaviors.tsv": "".join(rows)})
    )
    since, hours = np.datetime64("2019-11-12T10:00:00"), RecentPopularity(0.25, 0.1)
    titles = TextPopularity(hours).fit(dataset.log, dataset.catalog, since)
    found = evaluate_impressions({"titles": titles, "ids": hours}, dataset, since=since)
    assert found.set_index("model")["auc"].to_dict() == {"titles": 1.0, "ids": 0.5}


def test_what_was_popular_for_hours_is_another_thing_than_what_was_for_weeks(
    tmp_path: Path,
) -> None:
    rows = [f"U{n}\t11/12/2019 1:0{n}:00 AM\t\tN1-1 N2-0\n" for n in range(5)]
    rows += [f"V{n}\t11/12/2019 9:0{n}:00 AM\t\tN2-1 N3-0\n" for n in range(3)]
    rows += ["W\t11/12/2019 10:00:00 AM\t\tN1-0 N2-1\n"]
    found = evaluate_impressions(
        {"hours": RecentPopularity(0.25), "weeks": RecentPopularity()},
        load_dataset(write_files(tmp_path, {"news.tsv": NEWS, "behaviors.tsv": "".join(rows)})),
        since="2019-11-12T10:00:00",
    )
    assert found.set_index("model")["auc"].to_dict() == {"hours": 1.0, "weeks": 0.0}


def test_a_model_knows_what_precedes_an_impression_and_nothing_else(tmp_path: Path) -> None:
    seen: dict[tuple[str, str], list[str]] = {}

    class Watching:
        name = "watching"

        def scores(self, histories: Any) -> np.ndarray:
            for one in histories:
                items = [one.catalog.titles[item] for item in one.item_idx]
                seen[one.user_id, str(one.cutoff)[11:16]] = items
            return np.zeros((len(histories), histories[0].catalog.n_items))

    rows = (
        "U1\t11/12/2019 9:00:00 AM\tN4 N3\tN2-1 N1-0\n"  # out of order
        "U1\t11/12/2019 8:00:00 AM\tN4 N3\tN1-1 N2-0\n"
        "U2\t11/12/2019 8:30:00 AM\t\tN5-0 N1-0\n"  # no history, no click, ever
        "U3\t11/12/2019 8:30:00 AM\t\tN5-1 N1-1\n"
    )
    folder = write_files(tmp_path, {"news.tsv": NEWS, "behaviors.tsv": rows})
    found = evaluate_impressions({"watching": Watching()}, load_dataset(folder))
    assert seen == {
        ("U1", "08:00"): ["Title 4", "Title 3"],
        ("U1", "09:00"): ["Title 4", "Title 3", "Title 1"],
        ("U2", "08:30"): [],
        ("U3", "08:30"): [],
    }
    assert found["auc"].tolist() == pytest.approx([0.5, np.nan, np.nan, 0.5], nan_ok=True)
    assert found["mrr"].isna().tolist() == [False, True, True, False]
    table = summarize_impressions(found, "shop").set_index(["slice", "metric"])
    assert table.loc[("all", "auc"), "n"] == 2
    assert table.loc[("all", "measured"), ["value", "n"]].tolist() == [0.5, 4]


def test_a_batch_gives_what_single_lists_give(
    dataset: Dataset, cutoff: np.datetime64, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = TitleKernel().fit(dataset.log, dataset.catalog, cutoff)
    models = {"titles": titles, "popular": RecentPopularity()}
    together = evaluate_impressions(models, dataset, since=cutoff)
    monkeypatch.setattr(module, "_SCORES_PER_BATCH", 1)
    pd.testing.assert_frame_equal(together, evaluate_impressions(models, dataset, since=cutoff))


def test_the_same_lists_are_drawn_by_a_seed(dataset: Dataset) -> None:
    found = [evaluate_impressions({"best": BestOrder()}, dataset, n=50, seed=s) for s in (1, 1, 2)]
    assert [len(one) for one in found] == [50, 50, 50]
    pd.testing.assert_frame_equal(found[0], found[1])
    assert not found[0]["timestamp"].equals(found[2]["timestamp"])


def test_means_are_over_lists_and_intervals_over_people(dataset: Dataset) -> None:
    scores = evaluate_impressions({"popular": RecentPopularity()}, dataset)
    table = summarize_impressions(scores).set_index(["slice", "metric"])
    row = table.loc[("all", "auc")]
    assert row["value"] == pytest.approx(scores["auc"].mean())
    assert row["n"] == scores["auc"].notna().sum()
    assert row["low"] < row["value"] < row["high"]
    twice = pd.concat((scores, scores))  # the same people: nothing more is known
    again = summarize_impressions(twice).set_index(["slice", "metric"]).loc[("all", "auc")]
    assert again[["value", "low", "high"]].tolist() == pytest.approx(
        row[["value", "low", "high"]].tolist()
    )


def test_an_engine_orders_lists_after_its_fit_as_rank_does(
    dataset: Dataset, cutoff: np.datetime64
) -> None:
    engine = InterestEngine.from_pretrained(
        data=dataset.known_before(cutoff), cutoff=cutoff, model=None
    )
    models = {"engine": engine, "popular": RecentPopularity()}
    by_model = means(evaluate_impressions(models, dataset, since=cutoff))
    assert by_model["engine"]["auc"] > 0.6
    with pytest.raises(DataError, match="engine 'engine' was fitted on events up to"):
        evaluate_impressions(models, dataset)
    other = dataset.without_categories(dataset.catalog.categories[:1])
    with pytest.raises(DataError, match="engine 'engine' was fitted with another catalog"):
        evaluate_impressions(models, other, since=cutoff)


def test_what_has_seen_later_clicks_is_refused(dataset: Dataset, cutoff: np.datetime64) -> None:
    titles = TitleKernel().fit(dataset.log, dataset.catalog)
    with pytest.raises(DataError, match="'titled like what was taken' saw"):
        evaluate_impressions({"titles": titles}, dataset, since=cutoff)


def test_without_impressions_it_says_so(dataset: Dataset) -> None:
    best = {"best": BestOrder()}
    with pytest.raises(DataError, match="mind has no impression at or after 2030-01-01 of 480"):
        evaluate_impressions(best, dataset, since="2030-01-01")
    with pytest.raises(DataError, match="0 impressions cannot be drawn"):
        evaluate_impressions(best, dataset, n=0)
    with pytest.raises(DataError, match="tells nothing of what was shown"):
        evaluate_impressions(best, load_dataset("synthetic"))


def test_the_comparison_holds_titles_and_popularity_of_hours_and_weeks(tmp_path: Path) -> None:
    table = compare_on_impressions(load_dataset(write_news_log(tmp_path, n_readers=20)))
    values = table[(table["slice"] == "all") & (table["metric"] == "auc")].set_index("model")
    assert set(values.index) == {
        "popular in the last 28 days",
        "popular in the last 0.25 days",
        "titled like what was taken",
        "titled like what is popular",
    }
    assert values["value"].idxmax() == "titled like what was taken"
