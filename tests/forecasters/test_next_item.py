"""Next-item nets alone: trained on a log, stored without ids, asked for items and categories."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, MissingExtraError, ModelLoadError, TrainingError
from llmrec.forecasters import esasrec, next_item
from llmrec.forecasters.dispersion import Dispersion
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.esasrec import ESASRec, label_loss, taken_items
from llmrec.forecasters.next_item import TAKEN_PROBABILITY, NextItemScorer
from llmrec.forecasters.sequential import NextItemModel
from llmrec.forecasters.sequential_nets import (
    MAX_SEQUENCE,
    NextItemName,
    build_net,
    hidden_states,
    last_items,
    next_item_logits,
    next_item_loss,
)
from llmrec.ranking.registry import FittableScorer
from tests.worlds import START, catalog, log

CUTOFF = START + np.timedelta64(28, "D")
ITEMS, EVENTS = catalog(), log(n_users=12)
WEEK = np.timedelta64(7, "D")
OURS: tuple[NextItemName, ...] = ("GRU4Rec", "eSASRec")
CORNACS: tuple[NextItemName, ...] = ("SASRec", "BERT4Rec")
each = pytest.mark.parametrize("model", [*OURS, *CORNACS])
each_of_ours = pytest.mark.parametrize("model", OURS)


def fitted(model: NextItemName, seed: int = 0, steps: int = 2) -> NextItemScorer:
    if model in CORNACS:
        pytest.importorskip("cornac")
    return NextItemScorer(model, steps=steps).fit(EVENTS, ITEMS, CUTOFF, seed=seed)


def histories(cutoff: np.datetime64 = CUTOFF) -> list[History]:
    return make_histories(EVENTS, ITEMS, "7D", cutoff)


def in_folder(stored: Stored, folder: Path) -> Stored:
    stored.save(folder)
    return Stored.load(folder)


@each
def test_a_stored_net_scores_the_same_bytes(model: NextItemName, tmp_path: Path) -> None:
    scorer = fitted(model)
    loaded = NextItemScorer.from_stored(in_folder(scorer.stored(), tmp_path), ITEMS)
    assert loaded.scores(histories()).tobytes() == scorer.scores(histories()).tobytes()
    shares = scorer.category_shares(histories())
    assert loaded.category_shares(histories()).tobytes() == shares.tobytes()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    again = in_folder(loaded.stored(), tmp_path / "again")
    assert again.values == scorer.stored().values
    assert all(
        again.arrays[name].dtype != np.float64 for name in again.arrays.keys() - {"popularity"}
    )


@each_of_ours
def test_a_stored_net_still_refuses_histories_before_its_cutoff(model: NextItemName) -> None:
    loaded = NextItemScorer.from_stored(fitted(model).stored(), ITEMS)
    for scorer in (fitted(model), loaded):
        with pytest.raises(DataError, match=r"saw events up to .*fit it with an earlier cutoff"):
            scorer.scores(histories(CUTOFF - WEEK))
        assert len(scorer.category_shares(histories(CUTOFF - WEEK)))


@each_of_ours
def test_nothing_that_is_stored_names_a_person_or_an_item(
    model: NextItemName, tmp_path: Path
) -> None:
    fitted_on_all = NextItemModel.of(
        NextItemScorer(model, steps=1).fit(EVENTS, ITEMS), GlobalDrift(), 0.5, Dispersion()
    )
    windows = make_windows(EVENTS, ITEMS, "7D", CUTOFF)
    for place, forecaster in enumerate(
        (fitted_on_all, NextItemModel(model, steps=1).fit(windows, windows))
    ):
        forecaster.stored().save(tmp_path / str(place))
    texts = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(texts) == 4
    names = {*EVENTS.user_ids, *ITEMS.item_ids, *ITEMS.titles}
    assert not [name for name in names for text in texts if json.dumps(name) in text]


def without(name: str) -> Callable[[Stored], Stored]:
    return lambda stored: replace(
        stored, arrays={key: value for key, value in stored.arrays.items() if key != name}
    )


def with_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stored], Stored]:
    return lambda stored: replace(
        stored, arrays={**stored.arrays, name: change(stored.arrays[name])}
    )


def with_values(**values: object) -> Callable[[Stored], Stored]:
    return lambda stored: replace(stored, values={**stored.values, **values})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda stored: replace(stored, kind="Ease"), "it is a 'Ease'"),
        (without("item_emb.weight"), "item_emb.weight"),
        (without("popularity"), "popularity"),
        (with_array("popularity", lambda values: values[1:]), "items, the catalog"),
        (with_array("popularity", lambda values: values + np.nan), "not finite"),
        (with_array("item_emb.weight", lambda values: values[1:]), "item_emb.weight"),
        (with_array("item_emb.weight", lambda values: values * np.inf), "not finite"),
        (with_values(model="SASRecs"), "no next-item model is called"),
        (with_values(model="eSASRec"), "net"),
        (with_values(rate=-1.0), "rate"),
        (with_values(before="yesterday"), "yesterday"),
    ],
)
def test_what_is_no_stored_net_is_refused(spoil: Callable[[Stored], Stored], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        NextItemScorer.from_stored(spoil(fitted("GRU4Rec").stored()), ITEMS)


def test_a_net_of_a_catalog_of_another_size_is_refused() -> None:
    frame = pd.DataFrame({"item_id": ["a", "b"], "categories": [["A"], ["B"]]})
    with pytest.raises(ModelLoadError, match="the catalog 2"):
        NextItemScorer.from_stored(fitted("GRU4Rec").stored(), Catalog.from_frame(frame))


@each
def test_it_learns_from_everybodys_events_before_the_cutoff_alone(model: NextItemName) -> None:
    assert isinstance(NextItemScorer(model), FittableScorer)
    short = truncate_log(EVENTS, CUTOFF).align_to(ITEMS)
    assert 0 < len(short) < len(EVENTS)
    if model in CORNACS:
        pytest.importorskip("cornac")
    cut = NextItemScorer(model, steps=2).fit(short, ITEMS)
    part = make_histories(short, ITEMS, "7D", CUTOFF)
    assert cut.scores(part).tobytes() == fitted(model).scores(part).tobytes()


@each_of_ours
def test_a_batch_gives_what_single_calls_give(model: NextItemName) -> None:
    scorer = fitted(model)
    singles = [scorer.scores([history]) for history in histories()]
    np.testing.assert_allclose(
        scorer.scores(histories()), np.concatenate(singles), rtol=0, atol=1e-12
    )
    assert scorer.scores([]).shape[0] == 0


@each_of_ours
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model: NextItemName) -> None:
    once, again, other = (fitted(model, seed).scores(histories()) for seed in (1, 1, 2))
    assert once.tobytes() == again.tobytes() != other.tobytes()


def test_a_net_that_is_not_fitted_is_asked_in_vain() -> None:
    scorer = NextItemScorer("GRU4Rec")
    with pytest.raises(ValueError, match="not fitted"):
        scorer.scores(histories())
    with pytest.raises(TrainingError, match="fit it"):
        scorer.category_shares(histories())
    with pytest.raises(TrainingError, match="fit it"):
        scorer.stored()
    with pytest.raises(TrainingError, match="fit it"):
        NextItemModel.of(scorer, GlobalDrift(), 0.5, Dispersion())


def no_number(net: torch.nn.Module, *_: torch.Tensor) -> torch.Tensor:
    return net.item_emb.weight.sum() * torch.nan


def no_gradient(net: torch.nn.Module, *_: torch.Tensor) -> torch.Tensor:
    return torch.sqrt((net.item_emb.weight * 0).sum())  # 0, whose derivative is no number


@pytest.mark.parametrize("loss", [no_number, no_gradient])
def test_a_net_that_diverges_leaves_nothing_to_ask(
    loss: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = fitted("GRU4Rec", steps=1)
    monkeypatch.setattr(next_item, "next_item_loss", loss)
    with pytest.raises(TrainingError, match="no finite number"):
        scorer.fit(EVENTS, ITEMS, CUTOFF)
    with pytest.raises(ValueError, match="not fitted"):
        scorer.scores(histories())


def test_a_log_of_people_with_one_item_each_says_what_it_lacks() -> None:
    one_each = EVENTS.drop_events(
        {"later": np.arange(len(EVENTS)) != EVENTS.user_offsets[EVENTS.user_idx]}
    ).align_to(ITEMS)
    with pytest.raises(TrainingError, match="two items"):
        NextItemScorer("GRU4Rec").fit(one_each, ITEMS)


@each_of_ours
def test_a_forecaster_of_a_net_keeps_its_share_on_a_net_trained_later(model: NextItemName) -> None:
    windows = make_windows(EVENTS, ITEMS, "7D", CUTOFF - WEEK)
    judged = NextItemModel(model, steps=2).fit(windows, windows)
    same = NextItemModel.of(judged.scorer, judged.prior, judged.share, judged.spread)
    weights = judged.category_weights(histories())
    assert same.category_weights(histories()).tobytes() == weights.tobytes()
    later = NextItemModel.of(fitted(model, seed=3), judged.prior, 0.7, judged.spread)
    assert (later.share, later.seed, later.fitted and later.fitted.before) == (0.7, 3, CUTOFF)
    net = later.scorer.category_shares(histories())
    expected = 0.3 * judged.prior.category_weights(histories()) + 0.7 * net
    np.testing.assert_allclose(later.category_weights(histories()), expected)
    with pytest.raises(ValueError, match="cannot be"):
        NextItemModel.of(judged.scorer, judged.prior, 1.5, judged.spread)


@each_of_ours
def test_a_stored_forecaster_forecasts_the_same_bytes(model: NextItemName, tmp_path: Path) -> None:
    windows = make_windows(EVENTS, ITEMS, "7D", CUTOFF - WEEK)
    forecaster = NextItemModel(model, steps=2).fit(windows, windows, seed=5)
    stored = in_folder(forecaster.stored(), tmp_path)
    loaded = NextItemModel.from_stored(stored, ITEMS)
    for ours, theirs in zip(
        loaded.forecast(histories()), forecaster.forecast(histories()), strict=True
    ):
        assert ours.category_weights.tobytes() == theirs.category_weights.tobytes()
        assert (ours.concentration, ours.source) == (theirs.concentration, theirs.source)
    assert [loaded.fitted and loaded.fitted.covers(window) for window in windows] == [True] * len(
        windows
    )
    for spoil in (with_values(share=2.0), with_values(spread=[np.nan, 0.0]), with_values(prior=[])):
        with pytest.raises(ModelLoadError):
            NextItemModel.from_stored(spoil(stored), ITEMS)
    with pytest.raises(ModelLoadError, match="it is a 'NextItemScorer'"):
        NextItemModel.from_stored(stored.parts["scorer"], ITEMS)
    with pytest.raises(ModelLoadError, match="scorer"):
        NextItemModel.from_stored(replace(stored, parts={}), ITEMS)


def test_only_the_two_nets_of_cornac_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cornac.models.sasrec.sasrec", None)
    for model in OURS:
        assert np.isfinite(fitted(model).scores(histories())).all()
    for model in CORNACS:
        with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[sequential\]'"):
            NextItemScorer(model, steps=1).fit(EVENTS, ITEMS)


@each
def test_without_repeats_an_item_is_predicted_among_those_not_taken(
    model: NextItemName, tmp_path: Path
) -> None:
    if model in CORNACS:
        pytest.importorskip("cornac")
    scorer = NextItemScorer(model, steps=2, repeat="exclude").fit(EVENTS, ITEMS, CUTOFF)
    probabilities = np.exp(scorer.scores(histories()))
    for row, history in zip(probabilities, histories(), strict=True):
        taken = np.unique(history.item_idx)
        np.testing.assert_allclose(row[taken], TAKEN_PROBABILITY)
        assert np.delete(row, taken).sum() == pytest.approx(1)
    loaded = NextItemScorer.from_stored(in_folder(scorer.stored(), tmp_path), ITEMS)
    assert loaded.scores(histories()).tobytes() == scorer.scores(histories()).tobytes()
    assert not np.allclose(probabilities, np.exp(fitted(model).scores(histories())))


@pytest.mark.parametrize("largest_catalog", [10, 10_000])
@each_of_ours
def test_without_repeats_nothing_is_learned_from_taking_an_item_again(
    model: NextItemName, largest_catalog: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esasrec, "MAX_FULL_SOFTMAX", largest_catalog)
    net = build_net(model, 30).eval()
    once = torch.full((2, MAX_SEQUENCE + 1), 30)  # padding
    again = once.clone()
    again[:, -2:] = 4
    once[:, -2:] = torch.tensor([4, 5])
    assert float(next_item_loss(net, again, None, "exclude")) == 0
    assert float(next_item_loss(net, once, None, "exclude")) > 0
    assert float(next_item_loss(net, again, None, "allow")) > 0
    mixed = torch.cat([once[:1], again[:1]])
    torch.manual_seed(0)
    expected = next_item_loss(net, once[:1], None, "exclude")
    torch.manual_seed(0)
    torch.testing.assert_close(next_item_loss(net, mixed, None, "exclude"), expected)


def test_the_loss_without_repeats_is_the_cross_entropy_of_the_items_left() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 0.0]], dtype=torch.double)
    taken = torch.tensor([[True, False, False], [False, False, False]])
    left = -torch.log_softmax(scores[0, 1:], 0)[1], -torch.log_softmax(scores[1], 0)[0]
    loss = label_loss(scores, torch.tensor([2, 0]), taken)
    torch.testing.assert_close(loss, torch.stack(left).mean())
    rows = torch.tensor([[3, 1, 0, 1]])  # 3 is padding
    has = [[False] * 3, [False, True, False], [True, True, False], [True, True, False]]
    assert taken_items(rows, 3)[0].tolist() == has


def test_a_rule_on_repeats_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match="'allow' or 'exclude'"):
        NextItemScorer("GRU4Rec", repeat="never")  # type: ignore[arg-type]


@each_of_ours
def test_later_items_and_padding_do_not_change_earlier_states(model: NextItemName) -> None:
    torch.manual_seed(0)
    net = build_net(model, 30).double().eval()
    rows = torch.from_numpy(last_items([np.arange(40) % 30], MAX_SEQUENCE, 30))
    other = rows.clone()
    other[0, 30:] = 7
    before, after = hidden_states(net, rows), hidden_states(net, other)
    torch.testing.assert_close(before[:, 10:30], after[:, 10:30], rtol=0, atol=1e-12)
    assert not torch.allclose(before[:, 30:], after[:, 30:])
    scores = next_item_logits(net, rows).detach()
    with torch.no_grad():
        net.item_emb.weight[30] = 5.0
    torch.testing.assert_close(next_item_logits(net, rows).detach(), scores, rtol=0, atol=1e-12)


def test_the_loss_over_drawn_items_estimates_that_over_the_catalog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    net = ESASRec(400, MAX_SEQUENCE).eval()
    rows = torch.randint(400, (8, MAX_SEQUENCE + 1))
    with torch.no_grad():
        whole = float(net.loss(rows))
        monkeypatch.setattr(esasrec, "MAX_FULL_SOFTMAX", 10)
        monkeypatch.setattr(esasrec, "NEGATIVES", 200)
        drawn = [float(net.loss(rows)) for _ in range(30)]
    assert np.mean(drawn) == pytest.approx(whole, abs=0.02)
    assert np.std(drawn) > 0


def test_drawn_items_suffice_to_learn_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esasrec, "MAX_FULL_SOFTMAX", 10)
    monkeypatch.setattr(esasrec, "NEGATIVES", 8)
    names = [f"i{place}" for place in range(20)]
    items = Catalog.from_frame(pd.DataFrame({"item_id": names, "categories": [["A"]] * 20}))
    rows = [
        (f"u{user}", names[(3 * user + event) % 20], START + np.timedelta64(event, "h"))
        for user in range(8)
        for event in range(30)
    ]
    events = Interactions.from_frame(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    )
    events = events.align_to(items)
    scorer = NextItemScorer("eSASRec", steps=120).fit(events, items)
    found = make_histories(events, items, "36500D")
    after = [(history.item_idx[-1] + 1) % 20 for history in found]
    scores = scorer.scores(found)
    assert scores.argmax(axis=1).tolist() == after
    assert np.exp(scores).max(axis=1).min() > 0.6
