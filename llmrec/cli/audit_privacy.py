"""The command `llmrec audit privacy`: what an engine tells of the people it was fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.table import Table
from rich.text import Text

from llmrec.cli import render
from llmrec.cli.audits import audits
from llmrec.cli.log_options import KnownBefore, load_log, with_reading_options
from llmrec.cli.options import AsJson, Data
from llmrec.data.options import ReadingOptions
from llmrec.engine_folder import is_engine
from llmrec.engine_settings import SETTINGS_FILE, Effort, EngineSettings
from llmrec.errors import DataError

if TYPE_CHECKING:
    from llmrec.evaluation.canaries import CanaryResult
    from llmrec.evaluation.membership import AttackResult

MAX_AUC = 0.55  # above it an engine is said to tell members from others


@audits.command()
@with_reading_options
def privacy(
    reading: ReadingOptions,
    data: Data = "ml-100k",
    model: Annotated[
        str | None, typer.Option(help="An engine's folder: fits are of its effort and seed.")
    ] = None,
    engines: Annotated[int, typer.Option(min=4, help="Engines fitted on halves of people.")] = 8,
    canaries: Annotated[int, typer.Option(min=0, help="Made-up people with a secret.")] = 100,
    cutoff: KnownBefore = None,
    as_json: AsJson = False,
) -> None:
    """Attack engines fitted on halves of the people: say what they tell of who was in the fit.

    A language model and its adapter are not fitted again, and not attacked.
    """
    from llmrec.evaluation.canaries import plant_canaries
    from llmrec.evaluation.membership import attack_engines

    effort, seed = _fit_of(model)
    dataset = load_log(data, reading, cutoff)
    progress = render.make_console(stderr=True)
    show = progress.print if progress.is_terminal else lambda line: None
    attacks = attack_engines(dataset, effort, engines, seed, show)
    planted = plant_canaries(dataset, effort, canaries, seed) if canaries else None
    if as_json:
        found = {"attacks": [asdict(one) for one in attacks], "canaries": planted and vars(planted)}
        render.print_json({"data": data, "effort": effort, **found})
        return
    view = Table("attacked", "AUC (95 %)", "members found at 1 % others", box=None)
    for one in attacks:
        view.add_row(one.attacked, _interval(one.auc, "{:.3f}"), _interval(one.found, "{:.1%}"))
    render.console.print(view, *map(Text, _sentences(attacks, planted)), sep="\n")


def _fit_of(model: str | None) -> tuple[Effort, int]:
    """Give the effort and seed of a saved engine's fit; "quick" and 0 without one."""
    if model is None:
        return "quick", 0
    if not is_engine(model):
        raise DataError(f"{model} is no engine's folder: give one that `llmrec fit` wrote")
    settings = EngineSettings.load(Path(model, SETTINGS_FILE))
    for effort in get_args(Effort):
        if effort == settings.effort:
            return effort, settings.seed
    raise DataError(f"{model} does not say how it was fitted: fit it again, or leave out --model")


def _sentences(attacks: list[AttackResult], planted: CanaryResult | None) -> Iterator[str]:
    """Say what the figures mean, and what they do not show."""
    for one in attacks:
        tells = one.auc[0] > MAX_AUC
        yield (
            f"{one.attacked.capitalize()}: whoever has a person's events, and can fit engines like "
            f"this one, {'can tell' if tells else 'cannot tell'} whether the person was in the fit "
            f"(.5 is guessing, above {MAX_AUC} is telling)."
        )
    if planted is not None:
        yield (
            f"Canaries: {planted.n_extracted} of {planted.n_canaries} secrets of made-up people "
            f"stand first for a stranger who took the same items before, among "
            f"{planted.n_ranked:,}; a secret's rank is {planted.median_rank:g} in the middle, and "
            f"{planted.median_rank_without:g} where its person is not in the log."
        )
        leaks = [f"{name} {n}" for name, n in planted.members.items() if n]
        if leaks:
            yield f"By member alone: {', '.join(leaks)}."
    yield "Not attacked: language models and adapters, and who sees only the titles of short lists."


def _interval(values: tuple[float, float, float], form: str) -> str:
    value, low, high = (form.format(one) for one in values)
    return f"{value} ({low} to {high})"
