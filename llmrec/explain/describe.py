"""The description of a forecast: what the model chooses to say, checked, in true sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from llmrec.data.periods import History, Window
from llmrec.explain.facts import CLAIMS, Facts, drawer, what_came
from llmrec.explain.statements import check, derive, reviewed, sentence
from llmrec.forecast import Forecast, Kind
from llmrec.language.codec import Codec
from llmrec.language.grammar import PHRASES_OF
from llmrec.language.model import LanguageModel
from llmrec.types import FloatArray

LEAST_CAME = 0.2  # how much of what came is in a line to learn from, at least


def true_claims(window: Window, limit: int = CLAIMS) -> list[tuple[Kind, int]]:
    """Give what changed from a history to what really came, the largest changes first.

    The conditions are those that a forecast's claims must meet; one claim a category, the kinds in
    turn. None if nothing meets them.
    """
    return _claims(window.history, what_came(window), limit)


def completion(codec: Codec, window: Window, prior: FloatArray, seed: int) -> str:
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
    history, came = window.history, what_came(window)
    rng = drawer(seed, history.user_id, history.cutoff)
    share = rng.uniform(LEAST_CAME, 1.0)
    weights = (1 - share) * prior + share * came.category_weights
    ahead = replace(came, category_weights=weights / weights.sum())
    words = codec.words(_claims(history, ahead, CLAIMS), rng)
    return codec.render(replace(ahead, description=words))


def _claims(history: History, ahead: Forecast, limit: int) -> list[tuple[Kind, int]]:
    """Give true (kind, category) claims, the largest changes first, see `Facts.most_telling`."""
    facts = Facts.of(history, ahead)
    return facts.most_telling(np.abs(facts.change), limit)


NOTHING_TO_SAY = "Nothing in this history points up or down."


def spoken(
    model: LanguageModel,
    codec: Codec,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    *,
    freely: bool = False,
) -> list[Forecast]:
    """Give the forecasts with descriptions in the model's words.

    It writes them after its request and the forecast in numbers, under a grammar of what `derive`
    finds true of history and forecast; where nothing is, it is not asked. ``freely`` lets it claim
    anything of any category, and what the checker does not support is rejected afterwards: see
    `described`.
    """
    grammars = {}
    for i, pair in enumerate(zip(histories, forecasts, strict=True)):
        if freely:
            grammars[i] = codec.words_grammar()
        elif true := derive(*pair):
            grammars[i] = codec.claims_grammar((said.kind, said.category) for said in true)
    prompts = [
        f"{codec.request(histories[i])} {codec.mix(forecasts[i].category_weights)}:"
        for i in grammars
    ]
    lines = model.generate(prompts, constrain=list(grammars.values())) if prompts else []
    words = {i: line.text for i, line in zip(grammars, lines, strict=True)}
    found = []
    for i, (history, forecast) in enumerate(zip(histories, forecasts, strict=True)):
        said, unread = codec.claims(words.get(i, ""))
        found.append(described(history, forecast, said, len(unread)))
    return found


def described(
    history: History, forecast: Forecast, claims: Mapping[tuple[Kind, int], str], unread: int = 0
) -> Forecast:
    """Give the forecast with checked statements and a description made of them.

    ``claims`` are what the model said: (kind, category) and the phrase it chose, which is kept
    (``unread``: pieces it wrote that say nothing checkable, or nothing more). Those that history
    and forecast support come first; the rejected ones are counted in the source; what counting
    derives fills up to four statements.
    """
    accepted, rejected = reviewed(claims, history, forecast)
    accepted = accepted[:CLAIMS]
    spoken = {statement.category for statement in accepted}
    derived = [s for s in derive(history, forecast, limit=CLAIMS) if s.category not in spoken]
    statements = (*accepted, *derived[: CLAIMS - len(accepted)])
    source = replace(
        forecast.source,
        proposed=len(accepted),
        rejected=len(rejected) + unread,
    )
    sentences = [
        sentence(statement, history, forecast, claims.get((statement.kind, statement.category), ""))
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
        if lie := check(statement, history, forecast):
            return lie
        phrases = ("", *PHRASES_OF[statement.kind])
        ways = (sentence(statement, history, forecast, phrase) for phrase in phrases)
        rest = rest.removeprefix(next((way for way in ways if rest.startswith(way)), "")).lstrip()
    if rest != ("" if forecast.statements else NOTHING_TO_SAY):
        return f"{rest[:80]!r} is none of its statements"
    return None
