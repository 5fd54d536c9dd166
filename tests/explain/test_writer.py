from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.explain.describe import check_description, describe_forecasts
from llmrec.explain.facts import ClaimFacts
from llmrec.explain.statements import derive_statements
from llmrec.explain.writer import DescriptionWriter, as_completer
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.completion import Completion
from llmrec.language.grammar import PHRASES_BY_KIND
from tests.completions import completion, completions_endpoint
from tests.worlds import catalog, log, small_world


@dataclass
class Saying:
    """A completer that says the same after each prompt, or one thing after the other."""

    lines: Sequence[Completion]

    def complete(self, prompts: Sequence[str], grammars: Sequence[str]) -> list[Completion]:
        assert len(prompts) == len(grammars)
        self.prompts = prompts
        return [self.lines[place % len(self.lines)] for place in range(len(prompts))]


def dataset() -> Dataset:
    return Dataset("small", log(), catalog(), "7D", "films", "viewer", "allow")


@pytest.fixture(scope="module")
def people() -> list[History]:
    return [window.history for window in small_world(n_users=8)]


@pytest.fixture(scope="module")
def forecasts(people: list[History]) -> list[Forecast]:
    return DecayedDirichlet().forecast(people)


def test_true_claims_of_a_server_are_in_its_words_and_the_source_says_so(
    people: list[History], forecasts: list[Forecast]
) -> None:
    lines = []
    for history, forecast in zip(people, forecasts, strict=True):
        true = derive_statements(history, forecast)[0]
        name = history.catalog.categories[true.category]
        lines.append(Completion(f"{name} {PHRASES_BY_KIND[true.kind][-1]}, what else."))
    writer = DescriptionWriter(Saying(lines), dataset())
    for history, one, line in zip(people, writer.describe(people, forecasts), lines, strict=True):
        assert one.description.startswith(line.text.partition(",")[0])
        assert (one.source.proposed, one.source.rejected) == (1, 1)
        assert one.source.why == "in the server's words"
        assert check_description(history, one) is None
    assert writer.counts == {"by the server": len(people)}


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (Completion("I am a language model."), "refused by the checks"),
        (Completion("Action as something new, Comedy as something new."), "refused by the checks"),
        (Completion("\x1b[31mDrama\u202e"), "refused by the checks"),
        (Completion(failure="timed out"), "timed out"),
        (Completion(failure="HTTP 500"), "HTTP 500"),
    ],
)
def test_where_a_server_says_nothing_true_the_words_are_those_of_the_rule(
    people: list[History], forecasts: list[Forecast], line: Completion, outcome: str
) -> None:
    writer = DescriptionWriter(Saying([line]), dataset())
    plain = describe_forecasts(people, forecasts)
    for one, rule in zip(writer.describe(people, forecasts), plain, strict=True):
        assert one.description == rule.description
        assert one.statements == rule.statements
        assert one.source.why == f"worded by rule, server: {outcome}"
        rejected = one.source.rejected
        assert replace(one.source, why="", rejected=0) == replace(rule.source, why="")
        assert bool(rejected) == bool(line.text)
    assert writer.counts == {outcome: len(people)}


def test_a_reason_of_the_forecast_stays_before_that_of_its_words(
    people: list[History], forecasts: list[Forecast]
) -> None:
    known = [replace(one, source=replace(one.source, why="a = 0")) for one in forecasts]
    writer = DescriptionWriter(Saying([Completion(failure="timed out")]), dataset())
    (one, *_) = writer.describe(people, known)
    assert one.source.why == "a = 0; worded by rule, server: timed out"


def test_where_nothing_is_true_the_server_is_not_asked_and_the_source_stays(
    people: list[History], forecasts: list[Forecast], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClaimFacts, "chosen_claims", lambda *_: [])
    writer = DescriptionWriter(Saying([]), dataset())
    assert {one.source.why for one in writer.describe(people, forecasts)} == {""}
    assert writer.summary() == "8 descriptions: 8 with nothing to say"


def test_one_line_tells_what_became_of_all_descriptions() -> None:
    writer = DescriptionWriter(Saying([]), dataset())
    writer.counts = Counter({"timed out": 1, "by the server": 9, "refused by the checks": 2})
    assert writer.summary() == (
        "12 descriptions: 9 by the server, 2 refused by the checks, 1 timed out"
    )
    writer.counts = Counter({"by the server": 1})
    assert writer.summary() == "1 description: 1 by the server"


def test_prompts_are_plain_text_with_titles_the_forecast_and_a_line_of_true_claims(
    people: list[History], forecasts: list[Forecast]
) -> None:
    completer = Saying([Completion(failure="empty")])
    DescriptionWriter(completer, dataset()).describe(people, forecasts)
    shown = []
    for prompt in completer.prompts:
        assert prompt.replace("\n", " ").isprintable()
        assert prompt.startswith("What one viewer takes")
        assert "such as Title " in prompt
        *_, example, last = prompt.splitlines()
        assert last.endswith("%:")
        assert example.startswith(f"{last} ")
        shown.append(Completion(example.removeprefix(last)))
    repeating = DescriptionWriter(Saying(shown), dataset())
    for one in repeating.describe(people, forecasts):
        assert one.source.proposed == len(one.statements) > 0
        assert one.source.rejected == 0


def test_a_url_is_a_server_and_no_url_an_error_before_anything_is_loaded(
    people: list[History], forecasts: list[Forecast]
) -> None:
    with completions_endpoint(lambda _: (200, completion("nothing true"))) as endpoint:
        completer = as_completer(endpoint.url)
        assert completer is not None
        writer = DescriptionWriter(completer, dataset())
        writer.describe(people, forecasts)
    assert writer.counts == {"refused by the checks": len(people)}
    assert as_completer(None) is None
    with pytest.raises(DataError, match="URL"):
        as_completer("localhost")
