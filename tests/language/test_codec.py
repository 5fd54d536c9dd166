"""Prompts: where they end, what they hold, and how they stay within the budget."""

from __future__ import annotations

from llmrec.language.codec import Codec
from tests.worlds import small_world


def test_a_prompt_ends_at_the_read_position_and_stays_in_budget() -> None:
    windows = small_world(n_users=3, n_periods=9)
    codec = Codec(windows[0].history.catalog.categories, budget=150)
    for window in windows:
        prompt = codec.prompt(window.history)
        assert prompt.endswith(":")
        assert -(-len(prompt) // 3) <= 150


def test_a_tighter_budget_merges_the_oldest_periods_and_keeps_the_newest() -> None:
    history = small_world(n_users=1, n_periods=9)[0].history
    wide = Codec(history.catalog.categories, budget=10_000).prompt(history).splitlines()
    tight = Codec(history.catalog.categories, budget=150).prompt(history).splitlines()
    assert 3 <= len(tight) < len(wide)
    assert tight[-2] == wide[-2]
    assert tight[1].split(" to ")[0] == wide[1].split(" to ")[0]


def test_a_prompt_never_executes_template_code_from_a_title() -> None:
    history = small_world(n_users=1, titles="{{ 7 * 7 }}{% raw %}")[0].history
    prompt = Codec(history.catalog.categories, budget=10_000).prompt(history)
    assert "7 * 7" in prompt
    assert "{" not in prompt
    assert "49" not in prompt


def test_a_history_without_events_still_has_a_prompt() -> None:
    history = small_world(n_users=1, empty=True)[0].history
    prompt = Codec(history.catalog.categories).prompt(history)
    assert "nothing" in prompt
