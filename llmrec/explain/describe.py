"""Descriptions of forecasts in checked sentences, and target lines to train a model on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llmrec.data.periods import History, Window
from llmrec.explain.facts import (
    MAX_CLAIMS,
    ClaimFacts,
    compare_many,
    observed_forecast,
    seeded_rng,
    statements_that_came_true,
)
from llmrec.explain.statement_sentences import make_sentence, statement_sentence
from llmrec.explain.statements import check_claims, check_statement, statement_of
from llmrec.forecast import Forecast, StatementKind
from llmrec.language.completion import Complete, Completion
from llmrec.language.grammar import PHRASES_BY_KIND
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llmrec.language.codec import Codec
    from llmrec.language.model import LanguageModel

MIN_OBSERVED_SHARE = 0.2  # least weight of the observed shares in a target line
EMPTY_DESCRIPTION = "Nothing about the next period is certain enough to be said."
EMPTY_LATER_DESCRIPTION = "Nothing about that period is certain enough to be said."
CELLS_AT_A_TIME = 300_000  # (person, category) whose facts are in memory


def supported_claims(window: Window, limit: int = MAX_CLAIMS) -> list[tuple[StatementKind, int]]:
    """Give the claims that the observed target supports, the largest changes first.

    One claim a category, the kinds in turn. What is taken "again", and "nothing of" which is, the
    target says; the other kinds have the conditions of claims without a probability.
    """
    return _claims(window, observed_forecast(window), limit)


def target_line(codec: Codec, window: Window, prior: FloatArray, seed: int) -> str:
    """Render a forecast line between prior and observed shares: the target of a model's training.

    A good forecast is between the two, so this line is, too: q = (1 - share) * prior + share *
    observed, with a sampled share. Its claims are true of q, or of the observed period; without
    true claims it has none.

    Parameters
    ----------
    prior
        (n_categories,) expected shares.
    seed
        Decides share and phrases, with user and cutoff.
    """
    history, observed = window.history, observed_forecast(window)
    rng = seeded_rng(seed, history.user_id, history.cutoff)
    share = rng.uniform(MIN_OBSERVED_SHARE, 1.0)
    weights = (1 - share) * prior + share * observed.category_weights
    ahead = replace(observed, category_weights=weights / weights.sum())
    words = codec.line.render_claims(_claims(window, ahead, MAX_CLAIMS), rng)
    return codec.line.render(replace(ahead, description=words))


def _claims(window: Window, ahead: Forecast, limit: int) -> list[tuple[StatementKind, int]]:
    """Give (kind, category) claims, the largest changes first, see `ClaimFacts.top_claims`."""
    facts = ClaimFacts.compare(window.history, ahead)
    facts = replace(facts, came_true=statements_that_came_true(window))
    return facts.top_claims(np.abs(facts.change), limit)


def describe_with_model(
    model: LanguageModel,
    codec: Codec,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    *,
    unconstrained: bool = False,
) -> list[Forecast]:
    """Give the forecasts with descriptions that the model generates, see `complete_descriptions`.

    If ``unconstrained`` it may claim anything of any category, and unsupported claims are rejected
    afterwards: see `describe_forecasts`.
    """

    def complete(prompts: Sequence[str], grammars: Sequence[str]) -> list[Completion]:
        return [Completion(line.text) for line in model.generate(prompts, constrain=grammars)]

    made = complete_descriptions(complete, codec, histories, forecasts, unconstrained=unconstrained)
    return [forecast for forecast, _ in made]


def complete_descriptions(
    complete: Complete,
    codec: Codec,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    *,
    unconstrained: bool = False,
    show_claims: bool = False,
) -> Iterator[tuple[Forecast, Completion | None]]:
    """Yield the forecasts with descriptions, each with the completion that it was made of.

    The text after the prompt and the forecast in numbers makes claims, under a grammar of what
    `derive_statements` finds true of history and forecast; where nothing is, none is asked for and
    the completion is None. Claims are checked, whether or not the grammar was kept to. If
    ``show_claims``, the prompt has a line with all that is true, for who may not know the grammar.
    """
    how = {"unconstrained": unconstrained, "show_claims": show_claims}
    for block in _blocks(histories):
        yield from _complete_block(complete, codec, histories[block], forecasts[block], **how)


def _complete_block(
    complete: Complete,
    codec: Codec,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    *,
    unconstrained: bool,
    show_claims: bool,
) -> Iterator[tuple[Forecast, Completion | None]]:
    facts, grammars, prompts = compare_many(histories, forecasts), {}, []
    for i, known in enumerate(facts):
        true = known.chosen_claims()
        if unconstrained:
            grammars[i] = codec.line.description_grammar()
        elif true:
            grammars[i] = codec.line.claims_grammar(true)
        else:
            continue
        shown = true if show_claims else []
        prompts.append(_words_prompt(codec, histories[i], forecasts[i], shown))
    lines = complete(prompts, list(grammars.values())) if prompts else []
    found = dict(zip(grammars, lines, strict=True))
    for i, (history, forecast) in enumerate(zip(histories, forecasts, strict=True)):
        line = found.get(i)
        claims, unparsed = codec.line.parse_claims(line.text if line else "")
        yield _describe(history, forecast, facts[i], claims, len(unparsed)), line


def _words_prompt(
    codec: Codec,
    history: History,
    forecast: Forecast,
    shown: Sequence[tuple[StatementKind, int]],
) -> str:
    """Render a history and its forecast in numbers; before that, with the claims that are shown."""
    shares = codec.line.render_shares(forecast.category_weights)
    prompt = f"{codec.completion_prompt(history)} {shares}:"
    if not shown:
        return prompt
    words = codec.line.render_claims(shown, seeded_rng(0, history.user_id, history.cutoff))
    line = prompt.rpartition("\n")[2]
    return f"{prompt} {words}\n{line}"


def describe_forecasts(
    histories: Sequence[History], forecasts: Sequence[Forecast], *, remember: bool = False
) -> list[Forecast]:
    """Give the forecasts with checked statements and a description of their sentences.

    ``remember``: whether what they were compared with stays in memory as long as they do, for
    explanations of them.
    """
    found: list[Forecast] = []
    for block in _blocks(histories):
        facts = compare_many(histories[block], forecasts[block])
        people = zip(histories[block], forecasts[block], facts, strict=True)
        described = [_describe(*one, {}) for one in people]
        if remember:
            for history, one, known in zip(histories[block], described, facts, strict=True):
                known.remember(history, one)
        found += described
    return found


def _blocks(histories: Sequence[History]) -> Iterator[slice]:
    """Yield the places of people whose facts together have `CELLS_AT_A_TIME` at most."""
    if histories:
        size = max(1, CELLS_AT_A_TIME // histories[0].catalog.n_categories)
        for start in range(0, len(histories), size):
            yield slice(start, start + size)


def describe_from_claims(
    history: History,
    forecast: Forecast,
    claims: Mapping[tuple[StatementKind, int], str],
    n_unparsed: int = 0,
) -> Forecast:
    """Give the forecast with checked statements and a description of their sentences.

    ``claims`` are the model's: (kind, category) to the phrase that the sentence takes over.
    ``n_unparsed`` is how many other pieces it generated: without a claim, or with one again. Claims
    that history and forecast support come first; the rejected ones are counted in the source;
    derived statements follow, up to `MAX_CLAIMS`.
    """
    facts = ClaimFacts.of(history, forecast)
    return _describe(history, forecast, facts, claims, n_unparsed)


def _describe(
    history: History,
    forecast: Forecast,
    facts: ClaimFacts,
    claims: Mapping[tuple[StatementKind, int], str],
    n_unparsed: int = 0,
) -> Forecast:
    accepted, rejected = check_claims(claims, history, facts)
    accepted = accepted[:MAX_CLAIMS]
    claimed = {statement.category for statement in accepted}
    derived = [claim for claim in facts.chosen_claims() if claim[1] not in claimed]
    others = [statement_of(*claim, history, facts) for claim in derived]
    statements = (*accepted, *others[: MAX_CLAIMS - len(accepted)])
    phrases = [claims.get((statement.kind, statement.category), "") for statement in statements]
    sentences = [
        make_sentence(statement, history, facts, phrase)
        for statement, phrase in zip(statements, phrases, strict=True)
    ]
    return replace(
        forecast,
        description=" ".join(sentences) or _empty_description(forecast),
        statements=statements,
        source=replace(
            forecast.source, proposed=len(accepted), rejected=len(rejected) + n_unparsed
        ),
    )


def check_description(history: History, forecast: Forecast) -> str | None:
    """Describe the first part of a description that is not supported; None if there is none.

    It has to consist of its statements' sentences in their order, each in sampled words or with a
    phrase of its kind.
    """
    rest = forecast.description
    for statement in forecast.statements:
        if error := check_statement(statement, history, forecast):
            return error
        phrases = ("", *PHRASES_BY_KIND[statement.kind])
        variants = (statement_sentence(statement, history, forecast, one) for one in phrases)
        sentence = next((one for one in variants if rest.startswith(one)), "")
        if not sentence:
            return f"{rest[:80]!r} is not the sentence of its next statement"
        rest = rest.removeprefix(sentence).lstrip()
    if rest != ("" if forecast.statements else _empty_description(forecast)):
        return f"{rest[:80]!r} is none of its statements"
    return None


def _empty_description(forecast: Forecast) -> str:
    return EMPTY_DESCRIPTION if forecast.horizon == 1 else EMPTY_LATER_DESCRIPTION
