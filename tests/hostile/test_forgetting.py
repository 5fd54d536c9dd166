"""Whoever is forgotten is nowhere: in no byte of any artefact, in no statistic, and it is said.

Case number i is the i-th person of a shop whose seed is the number of the shop.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrec import InterestEngine
from llmrec.data.forget_certificate import ForgetCertificate
from llmrec.data.keyed_ids import KEY_VARIABLE
from llmrec.engine_forget import STATISTICS as STATISTICS_PART
from llmrec.evaluation.forecast_store import load_forecasts
from llmrec.forgetting import PRIORS, forget_everywhere
from llmrec.training.example_removal import count_timelines
from tests.forgotten_people import Shop, hash_of, make_shop, statistics_engine
from tests.hostile.conftest import Count

pytest.importorskip("sqlalchemy")
pytest.importorskip("datasets")
N_SHOPS = 12  # of four formats of a log


@pytest.mark.parametrize(
    "n", [pytest.param(8, id="some"), pytest.param(300, id="all", marks=pytest.mark.hostile)]
)
def test_whoever_is_forgotten_is_nowhere(
    n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    n_shops = min(N_SHOPS, n // 2)
    each = n // n_shops
    broken = []
    for seed in range(n_shops):
        shop = make_shop(tmp_path / f"shop{seed}", seed, n_people=each + 15)
        data = shop.load()
        rng = np.random.default_rng(seed)
        for user in rng.permutation(data.log.user_ids.to_numpy(dtype=object))[:each]:
            if said := what_is_wrong(shop, str(user)):
                broken.append(f"shop {seed}, {user}: {said}")
    count("people forgotten: no byte, no statistic, a whole certificate", n, len(broken))
    assert not broken, "\n".join(broken)


def what_is_wrong(shop: Shop, user: str) -> str:
    """Forget a person, and say what of the promise was broken; "" if nothing was."""
    hashed = hash_of(shop, user)
    if "log" not in " ".join(shop.ids_held(user, hashed)):
        return "the case is none: the id is not in the log"
    expected, others = truth(shop, user, hashed), receipts(shop, hashed)
    certificate = forget_everywhere(user, shop.places)
    if held := shop.ids_held(user, hashed):
        return f"still in {', '.join(held)}"
    if (found := removed(certificate)) != expected:
        return f"the certificate says {found}, not {expected}"
    if [one.part for one in certificate.unchanged] != [PRIORS] * bool(expected["timelines"]):
        return f"it names {certificate.unchanged} as what saw the person"
    if user in json.dumps(certificate.to_dict()):
        return "the certificate has the id"
    if receipts(shop, hashed) != others:
        return "forecasts of others are not as they were stored"
    return worst_statistic(shop)


def truth(shop: Shop, user: str, hashed: str) -> dict[str, int]:
    """Count what there is of a person, by what is counted."""
    data = shop.load()
    place = data.log.user_index(user)
    n_events = int(np.diff(data.log.user_offsets)[place])
    timelines = count_timelines(shop.folder / "examples", {hashed})[1]
    found = {
        "rows": n_events,
        "events of the engine": 2 * n_events,  # in its log, and in what everybody took
        "people they count": 1,
        "forecasts": 1,
        "timelines": timelines,
        "files": 1,
        "events of the server": 0,
    }
    from llmrec.serve.store import EventStore

    store = EventStore(str(shop.folder / "events.db"))
    found["events of the server"] = store.count(user)
    store.close()
    return found


def removed(certificate: ForgetCertificate) -> dict[str, int]:
    """Sum what a certificate says was removed, by what is counted."""
    counted = ("rows", "people they count", "forecasts", "timelines", "files")
    found = dict.fromkeys((*counted, "events of the engine", "events of the server"), 0)
    for one in certificate.changed:
        of = "server" if one.part == "events of the server" else "engine"
        name = f"events of the {of}" if one.counted == "events" else one.counted
        found[name] += one.before - one.after
    return found


def receipts(shop: Shop, hashed: str) -> set[str]:
    """Give the hashes of all stored forecasts but those of a person."""
    return {one.receipt for one in load_forecasts(shop.folder / "stored") if one.user_id != hashed}


def worst_statistic(shop: Shop) -> str:
    """Compare the saved engine's statistics with those that are solved on the log that is left."""
    data = shop.load()
    engine = InterestEngine.from_pretrained(str(shop.folder / "engine"), data=data, model=None)
    if engine.settings.n_users != data.log.n_users:
        return f"the engine is of {engine.settings.n_users} people, the log of {data.log.n_users}"
    expected = statistics_engine(data, engine.cutoff)
    histories = expected.histories()
    for one, right in zip(engine.blend.scorers, expected.blend.scorers, strict=True):
        differ = np.abs(one.scores(histories) - right.scores(histories)).max()
        if not differ <= 1e-9:
            return f"{STATISTICS_PART}: {type(one).__name__} differs by {differ:.1e}"
    same = engine.dataset.everybody.n_events == len(data.log)
    return "" if same else "what everybody took still has the person"
