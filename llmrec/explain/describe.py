"""The description of a forecast: what the model chooses to say, checked, in true sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmrec.contracts import Forecast, Kind
from llmrec.data.periods import History
from llmrec.explain.statements import check, derive, reviewed, sentence
from llmrec.explain.truth import CLAIMS
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.language.phrases import PHRASES_OF

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
