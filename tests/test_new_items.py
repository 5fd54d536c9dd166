"""Items that nobody has taken yet: ranked by their titles, listed where asked, explained truly."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, Dataset, Edit, InterestEngine, read_table
from llmrec.data.periods import truncate_log
from llmrec.data.splits import past_windows, training_log_for
from llmrec.explain.causes import Causes
from llmrec.explain.item import StatementText
from llmrec.explain.new_item_reasons import close_past_items
from llmrec.ranking import new_items
from llmrec.ranking.blend import Blend
from llmrec.ranking.new_items import is_new_item, new_in_targets
from llmrec.ranking.text_scorers import TitleKernel

THINGS = ("tea cup", "paper bag", "wooden clock")
COLOURS = ("red", "blue", "green", "white", "black", "brown", "ivory", "grey")
NEW = tuple(f"pink {thing}" for thing in THINGS)
START = np.datetime64("2020-01-01")
CUTOFF = START + np.timedelta64(140, "D")


def make_dataset(catalog: tuple[str, ...] = NEW) -> Dataset:
    """Of 90 people each takes things of one kind, a colour more every week; pink ones come last.

    In every period of 28 days colours of its own are first taken.
    """
    rng, rows = np.random.default_rng(0), []
    for user in range(90):
        thing = THINGS[user % 3]
        for week in range(20):
            known = COLOURS[: 3 + week // 4]
            for day in rng.integers(7, size=3):
                time = START + np.timedelta64(7 * week + int(day), "D")
                rows.append((f"u{user:02}", f"{known[rng.integers(len(known))]} {thing}", time))
    rows += [("u00", title, CUTOFF + np.timedelta64(1, "D")) for title in catalog]
    frame = pd.DataFrame(rows, columns=["user_id", "title", "timestamp"])
    frame["item_id"] = frame["title"]
    frame["categories"] = frame["title"].str.split().str[-1]
    whole = read_table(frame, name="things", period="28D", repeat="exclude")
    known = truncate_log(whole.log, CUTOFF)
    return replace(whole, log=known, item_rows=None, title_categories=None)


@pytest.fixture(scope="module")
def engine() -> InterestEngine:
    return InterestEngine.from_pretrained(
        data=make_dataset(), cutoff=CUTOFF, model=None, refit=True
    )


def test_a_new_item_like_what_somebody_takes_is_their_first(engine: InterestEngine) -> None:
    for user, thing in ((0, 0), (1, 1), (2, 2), (30, 0)):
        listed = [one.item_id for one in engine.recommend(f"u{user:02}", 3, shelf="new")]
        assert listed[0] == f"pink {THINGS[thing]}"
        assert set(listed) == set(NEW)


def test_only_items_without_an_event_before_the_cutoff_are_new(engine: InterestEngine) -> None:
    history = engine.history("u00")
    new = history.catalog.item_ids[is_new_item(history)]
    assert set(new) == set(NEW)


def test_items_that_targets_alone_hold_were_new_in_the_last_period() -> None:
    dataset = make_dataset()
    windows = past_windows(dataset)[0]
    found = dataset.catalog.item_ids[new_in_targets(windows)]
    assert set(found) == {f"{COLOURS[6]} {thing}" for thing in THINGS}


@pytest.mark.parametrize("period", ["28D", "5 events"])
def test_what_was_new_in_targets_is_what_the_log_to_fit_on_lacks(period: str) -> None:
    dataset = replace(make_dataset(), period=period)
    fold = past_windows(dataset)[0]
    for windows in (fold, fold[::3]):
        known = training_log_for(windows).align_to(dataset.catalog).item_idx
        taken = np.concatenate([window.target.item_idx for window in windows])
        assert new_in_targets(windows).tolist() == np.setdiff1d(taken, known).tolist()


def test_the_reason_names_taken_items_with_close_titles_and_holds(engine: InterestEngine) -> None:
    session = engine.session("u00", shelf="new")
    (first, *_) = session.recommend(3)
    assert first.why.startswith("Nobody has taken it yet; its title is close to ")
    named = first.explanation.causes
    assert named is not None
    assert {one.title.split(" ", 1)[1] for one in named.close_titles} == {"tea cup"}
    assert session.check(first.explanation) == ()
    assert session.check(session.explain(first.item_id)) == ()


@pytest.mark.parametrize("field", ["is_new", "close_titles", "order", "taken", "unknown"])
def test_a_wrong_reason_is_caught(engine: InterestEngine, field: str) -> None:
    session = engine.session("u00", shelf="new")
    (first, *_) = session.recommend(3)
    explanation = first.explanation
    causes = explanation.causes
    assert causes is not None
    close = causes.close_titles
    changed = {
        "is_new": replace(causes, is_new=False),
        "close_titles": replace(causes, close_titles=close[:1]),
        "order": replace(causes, close_titles=close[::-1]),
        "taken": replace(causes, close_titles=(replace(close[0], title="red paper bag"),)),
        "unknown": replace(causes, close_titles=(replace(close[0], item_id="none"), *close[1:])),
    }[field]
    assert session.check(replace(explanation, causes=changed))


def test_a_list_holds_as_many_new_items_as_asked_for(engine: InterestEngine) -> None:
    session = engine.session("u03")
    plain, mixed = session.recommend(10), session.recommend(10, new_items=2)
    places = [one.rank for one in mixed if one.item_id in NEW]
    assert places == [5, 10]
    assert [one.rank for one in mixed] == list(range(1, 11))
    others = [one.item_id for one in mixed if one.item_id not in NEW]
    assert others == [one.item_id for one in plain if one.item_id not in NEW][:8]
    assert all(session.check(one.explanation) == () for one in mixed)
    assert {one.explanation.shelf for one in mixed} == {"all", "new"}


@pytest.mark.parametrize("n", [-1, 11])
def test_more_new_items_than_the_list_holds_are_refused(engine: InterestEngine, n: int) -> None:
    with pytest.raises(DataError, match=f"new_items is {n}; it should be 0 to 10"):
        engine.recommend("u03", 10, new_items=n)


def test_all_new_items_are_given_where_there_are_fewer(engine: InterestEngine) -> None:
    listed = engine.recommend("u03", 10, new_items=9)
    assert sum(one.explanation.shelf == "new" for one in listed) == len(NEW)


def test_edits_act_on_lists_of_new_items(engine: InterestEngine) -> None:
    session = engine.session("u00", shelf="new", edits=[Edit("cup", 0.0)])
    assert "pink tea cup" not in [one.item_id for one in session.recommend(3)]
    effect = engine.session("u00", shelf="new", edits=[Edit("clock", 3.0)]).effect()
    assert effect.verify(3).largest_error < 1e-9


def test_a_saved_engine_gives_the_same_lists_of_new_items(
    engine: InterestEngine, tmp_path: Path
) -> None:
    engine.save_pretrained(tmp_path / "engine")
    events = pd.DataFrame(
        {
            "item_id": ["red tea cup", "blue tea cup"],
            "timestamp": [CUTOFF - np.timedelta64(9, "D")] * 2,
        }
    )
    loaded = InterestEngine.from_pretrained(str(tmp_path / "engine"), model=None)
    lists = [each.recommend(events, 3, shelf="new") for each in (engine, loaded)]
    for one, again in zip(*lists, strict=True):
        assert (one.item_id, one.score, one.why) == (again.item_id, again.score, again.why)


def test_a_shelf_that_there_is_not_is_refused_and_so_is_a_lone_id(engine: InterestEngine) -> None:
    with pytest.raises(DataError, match="shelf is 'launch'; it should be all or new"):
        engine.recommend("u00", shelf="launch")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="users are a list"):
        engine.recommend_many("u00", shelf="new")


def featured_dataset() -> Dataset:
    """The same things, called by codes that say nothing, with what they are in a feature block."""
    dataset = make_dataset()
    ids = dataset.catalog.item_ids
    kinds = np.array([[title.endswith(thing) for thing in THINGS] for title in ids], dtype=float)
    kinds += np.random.default_rng(0).normal(scale=0.05, size=kinds.shape)
    codes = tuple(f"{number:03d}" for number in range(len(ids)))
    catalog = replace(dataset.catalog, titles=codes).with_features("image", kinds)
    return replace(dataset, catalog=catalog)


@pytest.fixture(scope="module")
def featured() -> InterestEngine:
    data = featured_dataset()
    return InterestEngine.from_pretrained(data=data, cutoff=CUTOFF, model=None, refit=True)


def test_a_new_item_without_a_telling_title_is_ranked_by_its_features(
    featured: InterestEngine,
) -> None:
    for user, thing in ((0, 0), (1, 1), (2, 2)):
        session = featured.session(f"u{user:02}", shelf="new")
        listed = session.recommend(3)
        assert listed[0].item_id == f"pink {THINGS[thing]}"
        assert listed[0].why.startswith(
            "Nobody has taken it yet; in its image features it is close to "
        )
        causes = listed[0].explanation.causes
        assert causes is not None
        assert {one.item_id.split(" ", 1)[1] for one in causes.close_titles} == {THINGS[thing]}
        assert all(session.check(one.explanation) == () for one in listed)


@pytest.mark.parametrize("block", ["", "sound"])
def test_a_reason_that_names_the_wrong_block_is_caught(
    featured: InterestEngine, block: str
) -> None:
    session = featured.session("u00", shelf="new")
    explanation = session.recommend(1)[0].explanation
    assert explanation.causes is not None
    changed = replace(explanation.causes, close_block=block)
    assert session.check(replace(explanation, causes=changed))


@pytest.mark.parametrize("edits", [(), (Edit("cup", 2.0),)])
@pytest.mark.parametrize("fixture", ["engine", "featured"])
def test_each_field_of_the_reason_for_a_new_item_is_checked(
    fixture: str, edits: tuple[Edit, ...], request: pytest.FixtureRequest
) -> None:
    from benchmarks.explanations.corruptions import item_corruptions

    session = request.getfixturevalue(fixture).session("u00", shelf="new", edits=edits)
    true = session.recommend(1)[0].explanation
    assert true.causes is not None
    assert len(true.causes.close_titles) == 2
    made_up = StatementText("rising", "cup", 0.5, (), "Much more cup.")
    lies = [*item_corruptions(true, session.history, session.forecast)]
    lies.append(("statement", replace(true, statements=(*true.statements, made_up))))
    changed = set()
    for kind, false in lies:
        assert session.check(false), kind
        changed |= {one.name for one in fields(true) if _differ(true, false, one.name)}
        changed |= {
            one.name for one in fields(Causes) if _differ(true.causes, false.causes, one.name)
        }
    assert changed == {one.name for one in (*fields(true), *fields(Causes))}


def _differ(true: object, false: object, name: str) -> bool:
    return bool(getattr(true, name) != getattr(false, name))


def test_titles_come_before_features_in_a_reason_and_what_has_no_weight_in_none() -> None:
    dataset = make_dataset()
    numbers = np.random.default_rng(0).normal(size=(dataset.catalog.n_items, 4))
    catalog = dataset.catalog.with_features("image", numbers)
    titles, image = (TitleKernel(features=one).fit(dataset.log, catalog) for one in (None, "image"))
    history = dataset.histories(CUTOFF, [0])[0]
    new = np.flatnonzero(is_new_item(history))
    both = close_past_items(new, history, Blend([image, titles], [1.0, 1.0]))
    alone = close_past_items(new, history, Blend([titles], [1.0]))
    assert [one.items.tolist() for one in alone if len(one.items)]
    for one, by_title in zip(both, alone, strict=True):
        assert one.block == ("" if len(by_title.items) or not len(one.items) else "image")
        assert not len(by_title.items) or one.items.tolist() == by_title.items.tolist()
    weightless = close_past_items(new, history, Blend([image, titles], [1.0, 0.0]))
    assert {one.block for one in weightless if len(one.items)} <= {"image"}


def test_many_people_get_what_each_gets(engine: InterestEngine) -> None:
    users = ["u00", "u01", "u02"]
    for options in ({"shelf": "new"}, {"new_items": 2}):
        many = engine.recommend_many(users, 5, **options)
        alone = [engine.recommend(user, 5, **options) for user in users]
        assert [[(o.item_id, o.rank, o.why) for o in one] for one in many] == [
            [(o.item_id, o.rank, o.why) for o in one] for one in alone
        ]


def test_without_new_items_their_list_is_empty() -> None:
    known = make_dataset(catalog=())
    engine = InterestEngine.from_pretrained(data=known, cutoff=CUTOFF, model=None, refit=True)
    assert engine.recommend("u00", 5, shelf="new") == []
    assert len(engine.recommend("u00", 5, new_items=2)) == 5


def test_equal_titles_rank_new_items_without_text() -> None:
    dataset = make_dataset()
    dull = replace(dataset.catalog, titles=("thing",) * dataset.catalog.n_items)
    engine = InterestEngine.from_pretrained(
        data=replace(dataset, catalog=dull), cutoff=CUTOFF, model=None, refit=True
    )
    listed = engine.recommend("u00", 5, shelf="new")
    assert {one.item_id for one in listed} == set(NEW)
    assert all(one.why.startswith("Nobody has taken it yet.") for one in listed)


def test_where_titles_rank_new_items_no_better_than_chance_the_forecast_ranks_them_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(new_items, "ndcg_by_strength", lambda *values: np.full(8, 0.01))
    engine = InterestEngine.from_pretrained(data=make_dataset(), model=None, refit=True)
    report = engine.settings.report["new_items"]
    assert report["ndcg"] < report["random_ndcg"]
    assert set(report["weights"].values()) == {0.0}
    session = engine.session("u00", shelf="new")
    listed = session.recommend(3)
    assert {one.item_id for one in listed} == set(NEW)
    shares = engine.dataset.catalog.category_shares
    weights = session.forecast.category_weights
    taken = [engine.dataset.catalog.item_index(one.item_id) for one in listed]
    assert sorted(taken, key=lambda item: -float(shares[item] @ weights)) == taken
    assert all(session.check(one.explanation) == () for one in listed)
