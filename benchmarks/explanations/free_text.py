"""What the language model that ships with the package claims where nothing checks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.explanations.unchecked_claims import Claim, share_row
from benchmarks.forecasting.engines import ForecastTest, adapter_for
from benchmarks.harness.engines import make_engine
from benchmarks.harness.formatting import Row
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.engine_folder import ADAPTER_FOLDER, bundled_engine
from llmrec.explain.facts import MAX_CLAIMS, compare_many
from llmrec.explain.statements import check_claims
from llmrec.forecast import Forecast
from llmrec.forecasters.past_counts import PastCounts
from llmrec.forecasters.statement_outcomes import where_applicable

FREE_TEXT = "free text, unchecked"
PEOPLE_AT_A_TIME = 10


def free_claims(
    dataset: Dataset, test: ForecastTest, windows: Sequence[Window], forecasts: Sequence[Forecast]
) -> list[list[Claim]]:
    """Give the claims that the model writes after each prompt and forecast, up to the limit.

    It may claim anything of any category, in words that the grammar has, as
    `describe_with_model(unconstrained=True)` lets it; the adapter has learned nothing of the test.
    """
    adapter = adapter_for(dataset, bundled_engine(dataset.name) / ADAPTER_FOLDER)
    language = make_engine(test.dataset, adapter).language
    assert language is not None
    codec = language.codec
    prompts = [
        f"{codec.completion_prompt(window.history)} "
        f"{codec.line.render_shares(forecast.category_weights)}:"
        for window, forecast in zip(windows, forecasts, strict=True)
    ]
    claims: list[list[Claim]] = []
    for start in range(0, len(prompts), PEOPLE_AT_A_TIME):
        part = prompts[start : start + PEOPLE_AT_A_TIME]
        lines = language.model.generate(part, constrain=codec.line.description_grammar())
        claims += [list(codec.line.parse_claims(line.text)[0])[:MAX_CLAIMS] for line in lines]
        print(f"free text: {len(claims)} of {len(prompts)} people", flush=True)
    return claims


def checked_rows(
    keys: Row,
    windows: Sequence[Window],
    forecasts: Sequence[Forecast],
    claims: Sequence[Sequence[Claim]],
) -> Iterator[Row]:
    """Give the rows of the shares of claims that the past allows, and that the checker accepts."""
    histories = [window.history for window in windows]
    facts = compare_many(histories, forecasts)
    possible, accepted = list[bool](), list[bool]()
    for history, known, own in zip(histories, facts, claims, strict=True):
        applicable = where_applicable(PastCounts.of([history]))
        possible += [bool(applicable[kind][0, category]) for kind, category in own]
        n_accepted = len(check_claims(own, history, known)[0])
        accepted += [place < n_accepted for place in range(len(own))]
    of_model = keys | {"model": FREE_TEXT}
    yield share_row(of_model, "claims_possible", possible)
    yield share_row(of_model, "claims_supported", accepted)
