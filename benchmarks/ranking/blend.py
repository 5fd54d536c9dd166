"""Our lists: scorers blended by validation and tilted to a forecast, and what each brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ranking.baselines import Peer, Seasonal, Settings
from benchmarks.ranking.splits import LEAVE_ONE_OUT, K, Lists, Split, Stage, next_period
from llmrec.data.calendar import PeriodLength, to_datetime64
from llmrec.data.counts import target_counts
from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.codec import Codec, codec_for
from llmrec.language.model import LanguageModel
from llmrec.ranking.blend import Blend, PrecomputedScorer, fit_blend
from llmrec.ranking.fitting import fit_strength
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.lm_scorer import LMItemScorer
from llmrec.ranking.rank import rank
from llmrec.ranking.registry import SIMILARITY_FLOOR
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity

CONTESTED = 50  # items a person among which the blend's weights are fitted
OURS, FORETOLD, TUNED = "llmrec", "titles foretold", "the tuned LLM"
NUMBERS = f"{OURS} of numbers alone"


@dataclass(frozen=True, eq=False)
class Known:
    """Forecasts that were made once, looked up by history."""

    forecasts: dict[tuple[int, int], Forecast]

    @classmethod
    def of(cls, forecaster: Forecaster, histories: Sequence[History]) -> Known:
        """Ask a forecaster about all of them."""
        made = forecaster.forecast(histories)
        return cls({_key(h): one for h, one in zip(histories, made, strict=True)})

    @classmethod
    def came(cls, stage: Stage) -> Known:
        """Look at the targets: the ceiling of what tilting can bring."""
        counts = target_counts(stage.windows) + 1e-3
        source = Source("what came", "counting")
        rows = zip(stage.histories, counts / counts.sum(axis=1, keepdims=True), strict=True)
        return cls({_key(h): Forecast(row, 100.0, "", (), source) for h, row in rows})

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Give them."""
        return [self.forecasts[_key(history)] for history in histories]


def our_lists(
    split: Split, peers: Sequence[Peer], settings: Mapping[str, Settings], adapter: Path | None
) -> dict[str, dict[str, Lists]]:
    """Give lists of validation and tests, by variant.

    ``settings`` are those that validation chose for the peers; all join.
    With an adapter there are two blends: with the titles that it foretells, and of numbers alone,
    where a tilt to its forecast is all that it brings.
    """
    tuned = None if adapter is None else _opened(split, adapter)
    joined = [peer for peer in peers if peer.name in settings]
    stages = ("validation", *split.tests)
    scorers = {
        name: list(_scorers(split, split.stage(name), joined, settings, tuned)) for name in stages
    }
    forecasters = _forecasters(split, tuned)
    found: dict[str, dict[str, Lists]] = {}
    for name, left_out in ((OURS, ""), (NUMBERS, FORETOLD)):
        if left_out and tuned is None:
            continue
        blends = _blends(split, scorers, left_out)
        found[f"{name}, no tilt"] = _lists(split, blends, forecasters["counting"], 0.0)
        for kind, by_stage in forecasters.items():
            strength = fit_strength(
                by_stage["validation"],
                blends["validation"],
                split.validation.windows,
                repeat=split.repeat,
            )
            print(f"{name}, tilted to {kind}: strength {strength:g}", flush=True)
            found[f"{name}, tilted to {kind}"] = _lists(split, blends, by_stage, strength)
    return found


def _blends(
    split: Split, scorers: Mapping[str, Sequence[PrecomputedScorer]], left_out: str
) -> dict[str, Blend]:
    """Give the blend of each stage: scorers fitted anew, weights of validation."""
    joined = {
        stage: tuple(one for one in of_stage if one.name != left_out)
        for stage, of_stage in scorers.items()
    }
    windows = split.validation.windows
    fitted = fit_blend(joined["validation"], windows, repeat=split.repeat, top_n=CONTESTED)
    told = zip(fitted.names, fitted.weights, strict=True)
    print(", ".join(f"{scorer} {weight:.3f}" for scorer, weight in told if weight), flush=True)
    return {stage: Blend(of_stage, fitted.weights) for stage, of_stage in joined.items()}


def _forecasters(
    split: Split, tuned: tuple[LanguageModel, Codec] | None
) -> dict[str, dict[str, Known]]:
    """Give what lists are tilted to, by stage."""
    windows = split.validation.windows
    counting = DecayedDirichlet().fit(windows)
    mean = DecayedDirichlet(name="Mean").fit(windows, decays=(1.0,))
    asked: dict[str, Forecaster] = {"persistence": mean, "counting": counting}
    if tuned is not None:
        asked[TUNED] = _forecaster(*tuned, counting, split.validation)
    stages = {name: split.stage(name) for name in ("validation", *split.tests)}
    found = {
        kind: {name: Known.of(one, stage.histories) for name, stage in stages.items()}
        for kind, one in asked.items()
    }
    return found | {"what came": {name: Known.came(stage) for name, stage in stages.items()}}


def _scorers(
    split: Split,
    stage: Stage,
    joined: Sequence[Peer],
    settings: Mapping[str, Settings],
    tuned: tuple[LanguageModel, Codec] | None,
) -> Iterator[PrecomputedScorer]:
    """Fit each scorer on a stage, and ask it about everybody."""
    whole = RecentPopularity(36_500.0)
    yield PrecomputedScorer.of(whole, stage.histories, "taken most")
    if split.repeat == "allow":
        for days in (21.0, 1000.0):
            often = PersonalRepeat(days, 30.0)
            yield PrecomputedScorer.of(
                often, stage.histories, f"taken before, half-life {days:g} days"
            )
    for peer in joined:
        scorer: Any = peer.build(settings[peer.name], stage, split.dataset.catalog, 0)
        pairs = scorer.scorer if isinstance(scorer, Seasonal) else scorer
        if isinstance(pairs, ItemToItem):
            pairs.floor = SIMILARITY_FLOOR
        yield PrecomputedScorer.of(scorer, stage.histories, peer.name)
    if tuned is not None:
        yield PrecomputedScorer.of(LMItemScorer(*tuned), stage.histories, FORETOLD)


def _lists(
    split: Split,
    blends: Mapping[str, Blend],
    forecasters: Mapping[str, Known],
    strength: float,
) -> dict[str, Lists]:
    found = {}
    for name, blend in blends.items():
        histories = split.stage(name).histories
        forecasts = forecasters[name].forecast(histories)
        rankings = rank(forecasts, histories, blend, k=K, strength=strength, repeat=split.repeat)
        found[name] = [ranking.item_idx.tolist() for ranking in rankings]
    return found


def _opened(split: Split, adapter: Path) -> tuple[LanguageModel, Codec]:
    about = AdapterMetadata.load(adapter)
    check_unseen(split, about)
    model = LanguageModel.load(about.base_model, adapter=adapter)
    budget = int(about.config["budget"])
    return model, codec_for(split.dataset, model, template=about.prompt, budget=budget)


def check_unseen(split: Split, about: AdapterMetadata) -> None:
    """Refuse an adapter that may have learned from what a test asks for.

    Calendar: its cutoff lies before the tests. Events: it learned from the log without validation
    and tests, or, to leave one out, from the one that lacks whole last periods.
    """
    if PeriodLength.parse(split.dataset.period).unit != "events":
        first = min(
            window.target.period.start for window in next(iter(split.tests.values())).windows
        )
        unseen = bool(to_datetime64(about.cutoff) <= first)
        logs = {split.dataset.log.fingerprint}
    else:
        splits = [split, next_period(split.dataset)] if split.name == LEAVE_ONE_OUT else [split]
        unseen, logs = True, {one.validation.log.fingerprint for one in splits}
    if not unseen or about.data_fingerprint not in logs:
        raise DataError(
            f"the adapter learned from {about.dataset} ({about.data_fingerprint}) up to "
            f"{about.cutoff}: for {split.name!r} it may have seen what the tests ask for"
        )


def _forecaster(
    model: LanguageModel, codec: Codec, counting: DecayedDirichlet, validation: Stage
) -> LLMForecaster:
    titles = TitleForecaster(model, codec, counting).fit(validation.windows)
    forecaster = LLMForecaster(model, codec, titles if titles.share else counting)
    fitted = forecaster.fit(validation.windows)
    print(f"titles trusted with {titles.share:g}, reading with a = {fitted.a:.3f}", flush=True)
    return forecaster


def _key(history: History) -> tuple[int, int]:
    return history.user_idx, history.event_ids.stop
