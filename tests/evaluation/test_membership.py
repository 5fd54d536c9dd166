from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.readers import read_table
from llmrec.errors import DataError
from llmrec.evaluation.canaries import PREFIX_LENGTH, plant_canaries
from llmrec.evaluation.membership import attack, attack_engines, draw_members, scores
from llmrec.types import FloatArray
from tests.batch.conftest import labelled, make_events

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return read_table(labelled(make_events(60)), name="shop", period="14D")


def figures_of(n_people: int, n_engines: int, tells: float) -> tuple[FloatArray, FloatArray]:
    """Give figures that differ from person to person, and by so much for those in a fit."""
    is_member = draw_members(n_people, n_engines, seed=1)
    own = 3 * RNG.normal(size=n_people)
    return own + tells * is_member + RNG.normal(size=is_member.shape), is_member


def test_each_fit_has_half_of_the_people_whoever_is_in_the_others() -> None:
    is_member = draw_members(400, 6, seed=3)
    assert (is_member.sum(axis=1) == 200).all()
    assert abs(np.corrcoef(is_member)[~np.eye(6, dtype=bool)]).max() < 0.2
    assert (draw_members(400, 6, seed=3) == is_member).all()


def test_an_attack_on_nothing_is_a_guess_with_few_engines_too() -> None:
    found = [attack("lists", *figures_of(500, 4, 0.0)).auc[0] for _ in range(8)]
    assert abs(np.mean(found) - 0.5) < 0.01


def test_engines_that_remember_people_are_found_out_and_others_are_not() -> None:
    remembers, forgets = (attack("lists", *figures_of(400, 8, tells)) for tells in (6.0, 0.0))
    assert remembers.auc[0] > 0.98
    assert remembers.found[0] > 0.5
    assert forgets.auc[1] < 0.5 + 0.03
    assert forgets.auc[2] > 0.5 - 0.03
    assert forgets.found[0] < 0.03


def test_what_differs_from_person_to_person_alone_is_no_membership() -> None:
    figures, is_member = figures_of(400, 8, 2.0)
    plain = np.mean(
        [scores(one, member)[0] for one, member in zip(figures, is_member, strict=True)]
    )
    assert attack("lists", figures, is_member).auc[0] > plain + 0.1


def test_the_curve_is_that_of_a_worked_example() -> None:
    ratios = np.array([3.0, 1.0, 1.0, 0.0, 2.0])
    is_member = np.array([True, True, False, False, False])
    # 3 is above all three; 1 is above 0, equal to 1, below 2: (3 + 1.5) of 6 pairs.
    assert scores(ratios, is_member) == (0.75, 0.5)


def test_engines_are_attacked_and_small_logs_refused(shop: Dataset) -> None:
    shown: list[str] = []
    found = attack_engines(shop, "quick", 4, show=shown.append)
    assert [one.attacked for one in found] == ["forecasts", "lists"]
    assert len(shown) == 4
    for one in found:
        assert one.n_people >= 20
        assert one.auc[1] <= one.auc[0] <= one.auc[2]
    with pytest.raises(DataError, match="3 engines are too few"):
        attack_engines(shop, "quick", 3)
    with pytest.raises(DataError, match="people have a last period, and 20 are needed"):
        attack_engines(read_table(labelled(make_events(9)), name="few", period="14D"), "quick", 4)


def test_canaries_are_in_one_fit_and_their_secrets_rank_higher_there(shop: Dataset) -> None:
    found = plant_canaries(shop, "quick", 12)
    assert found.n_canaries == 12
    assert found.n_ranked == shop.catalog.n_items - PREFIX_LENGTH
    assert found.median_rank < found.median_rank_without
    assert 0 <= found.n_extracted <= 12
    assert found.members
