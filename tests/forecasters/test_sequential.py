"""Next-item nets as forecasters: a world whose next item is certain, cornac's scores, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cornac", reason="needs llmrec[sequential]")

import torch
from safetensors.torch import load_file, save_file

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window, make_histories, truncate_log
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecast import ItemScorer
from llmrec.forecasters.sequential import METADATA_FILE, PARAMETERS_FILE, NextItemModel
from llmrec.forecasters.sequential_nets import (
    MAX_SEQUENCE,
    NextItemName,
    build_net,
    hidden_states,
    last_items,
    next_item_logits,
)
from llmrec.ranking.blend import Blend
from tests.worlds import START, small_world

ITEMS = ("a", "b", "c", "d")
each = pytest.mark.parametrize("model", get_args(NextItemName))


def cycle(
    n_users: int = 6, n_events: int = 24, *, person: str = "u"
) -> tuple[Interactions, Catalog]:
    """After a comes b, after b comes c, after c comes a; d is never taken."""
    categories = [["A"], ["B"], ["C"], ["D"]]
    items = Catalog.from_frame(pd.DataFrame({"item_id": ITEMS, "categories": categories}))
    rows = [
        (f"{person}{user}", ITEMS[(user + event) % 3], START + np.timedelta64(event, "h"))
        for user in range(n_users)
        for event in range(n_events)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(frame).align_to(items), items


def windows(back: int) -> list[Window]:
    return make_windows(*cycle(), "1 events", back=back)


@pytest.fixture(scope="module", params=get_args(NextItemName))
def fitted(request: pytest.FixtureRequest) -> NextItemModel:
    steps = 200 if request.param == "BERT4Rec" else 90
    return NextItemModel(request.param, steps=steps).fit(windows(2), windows(1))


def week_before(windows: list[Window]) -> list[Window]:
    history = windows[0].history
    return make_windows(history.log, history.catalog, "7D", history.cutoff - np.timedelta64(7, "D"))


def tiny(model: NextItemName, seed: int = 0) -> NextItemModel:
    every = small_world()
    return NextItemModel(model, steps=2).fit(week_before(every), every, seed=seed)


def test_the_cycle_is_learned(fitted: NextItemModel) -> None:
    histories = [window.history for window in windows(0)]
    likeliest = fitted.scores(histories).argmax(axis=1)
    after = [(history.item_idx[-1] + 1) % 3 for history in histories]
    assert likeliest.tolist() == after
    assert np.exp(fitted.scores(histories)).max(axis=1).min() > 0.8


def test_the_forecast_is_the_next_item_in_categories(fitted: NextItemModel) -> None:
    histories = [window.history for window in windows(0)]
    assert fitted.share > 0.9
    for history, forecast in zip(histories, fitted.forecast(histories), strict=True):
        assert forecast.top(1)[0] == (history.item_idx[-1] + 1) % 3
        assert forecast.category_weights.sum() == pytest.approx(1, abs=1e-9)
        assert (forecast.category_weights > 0).all()
        assert forecast.source.model == fitted.model


@pytest.mark.parametrize("kept", [False, True])
def test_a_history_that_ends_before_what_was_learned_is_refused(
    fitted: NextItemModel, kept: bool, tmp_path: Path
) -> None:
    if kept:
        fitted.save(tmp_path)
        fitted = NextItemModel.load(tmp_path)
    histories = make_histories(*cycle(), "1 events", START + np.timedelta64(10, "h"))
    message = rf"'what comes next \({fitted.model}\)' saw 22 events of user 'u0'"
    with pytest.raises(DataError, match=message):
        fitted.scores(histories)
    every = small_world()
    by_weeks = tiny(fitted.model)
    with pytest.raises(DataError, match=r"saw events up to .*fit it with an earlier cutoff"):
        by_weeks.scores([window.history for window in week_before(every)])
    assert len(by_weeks.forecast([window.history for window in week_before(every)])) == len(every)


def test_two_nets_of_one_blend_go_by_different_names() -> None:
    nets = [NextItemModel(model) for model in get_args(NextItemName)]
    assert Blend(nets, (1.0,) * len(nets)).names[0] == "what comes next (SASRec)"


def test_scores_are_finite_log_probabilities_of_real_items(fitted: NextItemModel) -> None:
    scorer: ItemScorer = fitted
    scores = scorer.scores([window.history for window in windows(0)])
    assert scores.shape == (6, len(ITEMS))
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1)


def test_a_batch_gives_what_single_calls_give_in_any_order(fitted: NextItemModel) -> None:
    log, items = cycle(person="newcomer")
    histories = make_histories(log, items, "1 events", START + np.timedelta64(5, "h"))
    histories += [window.history for window in windows(0)]  # short and long ones side by side
    batch = fitted.scores(histories)
    singles = np.concatenate([fitted.scores([history]) for history in histories])
    np.testing.assert_allclose(batch, singles, rtol=0, atol=1e-12)
    np.testing.assert_allclose(batch, fitted.scores(histories[::-1])[::-1], rtol=0, atol=1e-12)


def test_what_happens_after_the_cutoff_changes_nothing(fitted: NextItemModel) -> None:
    log, items = cycle(person="newcomer")
    cutoff = START + np.timedelta64(10, "h")
    whole = fitted.scores(make_histories(log, items, "1 events", cutoff))
    cut = fitted.scores(make_histories(truncate_log(log, cutoff), items, "1 events", cutoff))
    np.testing.assert_array_equal(whole, cut)


def test_a_user_without_events_gets_what_is_popular(fitted: NextItemModel) -> None:
    log, items = cycle(person="newcomer")
    (nobody,) = make_histories(log, items, "1 events", START, [0])
    assert nobody.n_events == 0
    # 6 users took a, b, c alternately before validation, 22 events each; half an event for each.
    counts = np.array([44.5, 44.5, 44.5, 0.5])
    np.testing.assert_allclose(fitted.scores([nobody])[0], np.log(counts / counts.sum()))
    assert fitted.forecast([nobody])[0].category_weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec"])
def test_scores_in_batches_equal_what_cornac_scores(model: NextItemName) -> None:
    from cornac.models import SASRec, TransformerRec

    torch.manual_seed(0)
    net = build_net(model, 30).double().eval()
    taken = [np.arange(n) % 30 for n in (1, 7, MAX_SEQUENCE - 1, MAX_SEQUENCE, 77)]
    ours = (
        next_item_logits(net, torch.from_numpy(last_items(taken, MAX_SEQUENCE, 30)))
        .detach()
        .numpy()
    )
    theirs = (
        SASRec(max_len=MAX_SEQUENCE) if model == "SASRec" else TransformerRec(max_len=MAX_SEQUENCE)
    )
    theirs.model, theirs.pad_idx, theirs.mask_idx = net, 30, 31
    if model == "BERT4Rec":
        theirs.objective_ = theirs._build_objective()
    for row, items in zip(ours, taken, strict=True):
        np.testing.assert_allclose(row, theirs.score(0, items.tolist()), rtol=0, atol=1e-12)


def test_later_items_do_not_change_earlier_states_of_sasrec() -> None:
    torch.manual_seed(0)
    net = build_net("SASRec", 30).double().eval()
    rows = torch.arange(MAX_SEQUENCE)[None] % 30
    other = rows.clone()
    other[0, 20:] = 7
    before, after = hidden_states(net, rows), hidden_states(net, other)
    torch.testing.assert_close(before[:, :20], after[:, :20], rtol=0, atol=1e-12)
    assert not torch.allclose(before[:, 20:], after[:, 20:])


@each
def test_what_stands_in_the_padding_does_not_matter(model: NextItemName) -> None:
    torch.manual_seed(0)
    net = build_net(model, 30).double().eval()
    rows = torch.from_numpy(last_items([np.array([3, 1, 2])], MAX_SEQUENCE, 30))
    before = next_item_logits(net, rows).detach()
    with torch.no_grad():
        net.item_emb.weight[30] = 5.0
    torch.testing.assert_close(next_item_logits(net, rows).detach(), before, rtol=0, atol=1e-12)


@each
def test_the_validation_targets_are_not_learned_from(model: NextItemName) -> None:
    every = small_world()
    training, validation = week_before(every), every
    kinder = [Window(w.history, replace(w.target, stop=w.target.start + 1)) for w in validation]
    once, again = (
        NextItemModel(model, steps=2).fit(training, part) for part in (validation, kinder)
    )
    histories = [window.history for window in every]
    np.testing.assert_array_equal(once.scores(histories), again.scores(histories))


@each
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model: NextItemName) -> None:
    histories = [window.history for window in small_world()]
    once, again, other = (tiny(model, seed).scores(histories) for seed in (1, 1, 2))
    assert once.tobytes() == again.tobytes() != other.tobytes()


@each
def test_a_checkpoint_forecasts_the_same_bytes(model: NextItemName, tmp_path: Path) -> None:
    histories = [window.history for window in small_world()]
    fit = tiny(model)
    fit.save(tmp_path)
    loaded = NextItemModel.load(tmp_path)
    assert loaded.scores(histories).tobytes() == fit.scores(histories).tobytes()
    pairs = zip(loaded.forecast(histories), fit.forecast(histories), strict=True)
    for ours, theirs in pairs:
        assert ours.category_weights.tobytes() == theirs.category_weights.tobytes()
        assert ours.concentration == theirs.concentration
        assert ours.source == theirs.source
    assert loaded.fitted is not None
    assert fit.fitted is not None
    assert loaded.fitted.to_dict() == fit.fitted.to_dict()


def test_a_checkpoint_with_a_parameter_that_is_no_number_is_refused(tmp_path: Path) -> None:
    tiny("SASRec").save(tmp_path)
    state = load_file(tmp_path / PARAMETERS_FILE)
    state["pos_emb.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / PARAMETERS_FILE)
    with pytest.raises(ModelLoadError, match=r"'pos_emb.weight' is not finite"):
        NextItemModel.load(tmp_path)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is no next-item model"):
        NextItemModel.load(tmp_path)
    tiny("SASRec").save(tmp_path)
    about = json.loads((tmp_path / METADATA_FILE).read_text())
    (tmp_path / METADATA_FILE).write_text(json.dumps({**about, "model": "BERT4Rec"}))
    with pytest.raises(ModelLoadError, match="is no next-item model"):
        NextItemModel.load(tmp_path)
    (tmp_path / PARAMETERS_FILE).write_bytes(b"half a file")
    with pytest.raises(ModelLoadError, match="is no next-item model"):
        NextItemModel.load(tmp_path)


def test_nothing_is_forecast_before_a_fit_or_for_another_catalog(fitted: NextItemModel) -> None:
    histories = [window.history for window in small_world()]
    with pytest.raises(TrainingError, match="fit it"):
        NextItemModel("SASRec").forecast(histories)
    with pytest.raises(TrainingError, match="before saving"):
        NextItemModel("SASRec").save(Path("nowhere"))
    with pytest.raises(DataError, match="another catalog"):
        fitted.scores(histories)
    with pytest.raises(DataError, match="'Caser'"):
        NextItemModel("Caser")  # type: ignore[arg-type]
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="rate must be finite"):
            NextItemModel("SASRec", rate=rate)


def test_a_loss_that_is_no_number_leaves_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    every = small_world()
    forecaster = NextItemModel("SASRec", steps=1)
    monkeypatch.setattr(
        "llmrec.forecasters.next_item.next_item_loss", lambda *_: torch.tensor(float("nan"))
    )
    with pytest.raises(TrainingError, match="step 0 is nan"):
        forecaster.fit(every[:14], every[14:])
    with pytest.raises(TrainingError, match="fit it"):
        forecaster.scores([every[0].history])


def test_windows_of_two_logs_are_refused() -> None:
    with pytest.raises(DataError, match="several logs"):
        NextItemModel("SASRec").fit(small_world(seed=1), small_world(seed=2))


@pytest.mark.parametrize(("key", "value"), [("share", 5.0), ("spread", [float("nan"), 0.0])])
def test_a_setting_that_cannot_be_is_refused(tmp_path: Path, key: str, value: object) -> None:
    tiny("SASRec").save(tmp_path)
    about = json.loads((tmp_path / METADATA_FILE).read_text())
    (tmp_path / METADATA_FILE).write_text(json.dumps({**about, key: value}))
    with pytest.raises(ModelLoadError, match="cannot be"):
        NextItemModel.load(tmp_path)


def test_nothing_can_be_learned_from_people_without_events() -> None:
    (window,) = small_world(n_users=1, empty=True)
    with pytest.raises(TrainingError, match="two items"):
        NextItemModel("SASRec", steps=1).fit([], [window])
