"""Statistical checks of examples: how often they are wrong, and what they find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.interactions import Interactions
from llmrec.errors import DataError
from llmrec.training.example_checks import check_association
from llmrec.training.window_checks import MIN_SHARED_EVENTS, check_people

N_CATEGORIES, N_EVENTS = 6, 10


def make_columns(seed: int, strength: float, n_people: int = 120) -> dict[str, Any]:
    """Make targets of calibrated priors; people differ the less, the larger the strength is."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(N_CATEGORIES, strength), n_people)
    shares = np.stack([rng.multinomial(N_EVENTS, one) for one in weights]) / N_EVENTS
    users = [f"u{number}" for number in range(n_people)]
    return {"user": users, "shares": shares[:, None], "log_prior": np.log(weights)[:, None]}


def is_refused(columns: dict[str, Any]) -> bool:
    try:
        check_association("train", columns)
    except DataError as error:
        assert "say nothing about their histories" in str(error)  # noqa: PT017
        return True
    return False


@pytest.mark.parametrize("strength", [0.5, 5.0, 200.0])
def test_calibrated_targets_are_not_refused(strength: float) -> None:
    assert sum(is_refused(make_columns(seed, strength)) for seed in range(200)) == 0


def test_shuffled_targets_are_refused() -> None:
    for seed in range(20):
        columns = make_columns(seed, 2.0, n_people=500)
        columns["shares"] = np.roll(columns["shares"], 1, axis=0)
        assert is_refused(columns)


def test_of_few_people_nothing_is_said() -> None:
    columns = {name: values[:30] for name, values in make_columns(0, 1.0).items()}
    columns["shares"] = np.roll(columns["shares"], 1, axis=0)
    assert not is_refused(columns)


def make_log(n_same: int, n_more: int) -> Interactions:
    """Two people with events in common, and each with some of their own."""
    minutes = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n_same + 2 * n_more), "min")
    of_a = np.r_[0 : n_same + n_more]
    of_b = np.r_[0:n_same, n_same + n_more : n_same + 2 * n_more]
    rows = [(name, f"i{at}", minutes[at]) for name, own in (("a", of_a), ("b", of_b)) for at in own]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))


def test_two_people_are_one_from_four_fifths_of_their_events_on() -> None:
    with pytest.raises(DataError, match=r"users 'a' and 'b' share 80% of their events \(20\)"):
        check_people(make_log(20, 5))
    check_people(make_log(20, 6))


def test_few_events_in_common_say_nothing() -> None:
    check_people(make_log(MIN_SHARED_EVENTS - 1, 0))
