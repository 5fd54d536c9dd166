"""The description of a forecast: what the model chooses to say, checked, in true sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from llmrec.data.periods import History, Window
from llmrec.explain.facts import MAX_CLAIMS, ClaimFacts, observed_forecast, seeded_rng
from llmrec.explain.statements import (
    check_claims,
    check_statement,
    derive_statements,
    statement_sentence,
)
from llmrec.forecast import Forecast, StatementKind
from llmrec.language.codec import Codec
from llmrec.language.grammar import PHRASES_BY_KIND
from llmrec.language.model import LanguageModel
from llmrec.types import FloatArray

MIN_OBSERVED_SHARE = 0.2  # how much of what came is in a line to learn from, at least


def supported_claims(window: Window, limit: int = MAX_CLAIMS) -> list[tuple[StatementKind, int]]:
    """Give what changed from a history to what really came, the largest changes first.

    The conditions are those that a forecast's claims must meet; one claim a category, the kinds in
    turn. None if nothing meets them.
    """
    return _claims(window.history, observed_forecast(window), limit)


def target_line(codec: Codec, window: Window, prior: FloatArray, seed: int) -> str:
    """Write a forecast line between what was expected and what came: what a model learns to write.

    A forecast lies between what was to be expected and what came. So does this line, at a share
    drawn from its facts: q = (1 - share) * prior + share * what came, and the words are true of q.
    Without true claims there are no words.

    Parameters
    ----------
    prior
        (n_categories,) what was to be expected.
    seed
        With user and cutoff it decides share and phrases.
    """
    history, came = window.history, observed_forecast(window)
    rng = seeded_rng(seed, history.user_id, history.cutoff)
    share = rng.uniform(MIN_OBSERVED_SHARE, 1.0)
    weights = (1 - share) * prior + share * came.category_weights
    ahead = replace(came, category_weights=weights / weights.sum())
    words = codec.line.render_claims(_claims(history, ahead, MAX_CLAIMS), rng)
    return codec.line.render(replace(ahead, description=words))


def _claims(history: History, ahead: Forecast, limit: int) -> list[tuple[StatementKind, int]]:
    """Give true (kind, category) claims, the largest changes first, see `ClaimFacts.top_claims`."""
    facts = ClaimFacts.of(history, ahead)
    return facts.top_claims(np.abs(facts.change), limit)


NOTHING_TO_SAY = "Nothing in this history points up or down."


def describe_with_model(
    model: LanguageModel,
    codec: Codec,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    *,
    unconstrained: bool = False,
) -> list[Forecast]:
    """Give the forecasts with descriptions in the model's words.

    It writes them after its request and the forecast in numbers, under a grammar of what
    `derive_statements` finds true of history and forecast; where nothing is, it is not asked.
    ``freely`` lets it claim anything of any category, and what the checker does not support is
    rejected afterwards: see `describe_from_claims`.
    """
    grammars = {}
    for i, pair in enumerate(zip(histories, forecasts, strict=True)):
        if unconstrained:
            grammars[i] = codec.line.description_grammar()
        elif true := derive_statements(*pair):
            grammars[i] = codec.line.claims_grammar((said.kind, said.category) for said in true)
    prompts = [
        f"{codec.completion_prompt(histories[i])} "
        f"{codec.line.render_shares(forecasts[i].category_weights)}:"
        for i in grammars
    ]
    lines = model.generate(prompts, constrain=list(grammars.values())) if prompts else []
    words = {i: line.text for i, line in zip(grammars, lines, strict=True)}
    found = []
    for i, (history, forecast) in enumerate(zip(histories, forecasts, strict=True)):
        said, unread = codec.line.parse_claims(words.get(i, ""))
        found.append(describe_from_claims(history, forecast, said, len(unread)))
    return found


def describe_from_claims(
    history: History,
    forecast: Forecast,
    claims: Mapping[tuple[StatementKind, int], str],
    unread: int = 0,
) -> Forecast:
    """Give the forecast with checked statements and a description made of them.

    ``claims`` are what the model said: (kind, category) and the phrase it chose, which is kept
    (``unread``: pieces it wrote that say nothing checkable, or nothing more). Those that history
    and forecast support come first; the rejected ones are counted in the source; what counting
    derives fills up to four statements.
    """
    accepted, rejected = check_claims(claims, history, forecast)
    accepted = accepted[:MAX_CLAIMS]
    spoken = {statement.category for statement in accepted}
    derived = [
        s
        for s in derive_statements(history, forecast, limit=MAX_CLAIMS)
        if s.category not in spoken
    ]
    statements = (*accepted, *derived[: MAX_CLAIMS - len(accepted)])
    source = replace(
        forecast.source,
        proposed=len(accepted),
        rejected=len(rejected) + unread,
    )
    sentences = [
        statement_sentence(
            statement, history, forecast, claims.get((statement.kind, statement.category), "")
        )
        for statement in statements
    ]
    return replace(
        forecast,
        description=" ".join(sentences) or NOTHING_TO_SAY,
        statements=statements,
        source=source,
    )


def check_description(history: History, forecast: Forecast) -> str | None:
    """Say what of a description history and forecast do not support; None if they support it all.

    It has to be its statements' sentences in their order, each in drawn words or in a phrase of its
    kind.
    """
    rest = forecast.description
    for statement in forecast.statements:
        if lie := check_statement(statement, history, forecast):
            return lie
        phrases = ("", *PHRASES_BY_KIND[statement.kind])
        ways = (statement_sentence(statement, history, forecast, phrase) for phrase in phrases)
        rest = rest.removeprefix(next((way for way in ways if rest.startswith(way)), "")).lstrip()
    if rest != ("" if forecast.statements else NOTHING_TO_SAY):
        return f"{rest[:80]!r} is none of its statements"
    return None
