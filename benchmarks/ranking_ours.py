"""Our lists: scorers blended by validation and tilted to a forecast, and what each brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer, Settings, on_films, on_groceries
from benchmarks.ranking_splits import K, Lists, Split, Stage
from llmrec.contracts import FloatArray, Forecast, Forecaster, Source
from llmrec.data.periods import History, target_counts
from llmrec.evaluation.report import codec_for
from llmrec.evaluation.tuning import fit_strength, sharpened
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.forecasters.titles import ForetoldTitles
from llmrec.language.adapters import AdapterAbout
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.ranking.blend import Asked, Blend, fit_blend
from llmrec.ranking.foretold import ForetoldItems
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.named import FLOOR
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.ranking.tilt import rank

OURS = "llmrec"
ALONE = ("TIFU-KNN", "PureSVD", "BERT4Rec")  # not joined: two give no probabilities, one is dear


@dataclass(frozen=True, eq=False)
class Oracle:
    """What really came, as a forecast: the ceiling of what tilting can bring."""

    came: dict[tuple[int, int], FloatArray]

    @classmethod
    def of(cls, stage: Stage) -> Oracle:
        """Look at the targets."""
        counts = target_counts(stage.windows) + 1e-3
        shares = counts / counts.sum(axis=1, keepdims=True)
        return cls({_key(h): row for h, row in zip(stage.histories, shares, strict=True)})

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Give the targets' mixes."""
        source = Source("what came", "counting")
        return [Forecast(self.came[_key(history)], 100.0, "", (), source) for history in histories]


def our_lists(
    split: Split, settings: Mapping[str, Settings], adapter: Path | None
) -> dict[str, dict[str, Lists]]:
    """Give lists of validation and tests, by variant.

    ``settings`` are those that validation chose for the peers that join.
    """
    tuned = None if adapter is None else _opened(split, adapter)
    blends = dict(_blends(split, settings, tuned))
    validation = split.validation
    counting = DecayedDirichlet().fit(validation.windows)
    mean = DecayedDirichlet(name="Mean").fit(validation.windows, decays=(1.0,))
    forecasters: dict[str, dict[str, Forecaster]] = {
        "persistence": {name: mean for name in blends},
        "counting": {name: counting for name in blends},
        "what came": {name: Oracle.of(split.stage(name)) for name in blends},
    }
    if tuned is not None:
        reader = _forecaster(*tuned, counting, validation)
        forecasters["the tuned LLM"] = {name: reader for name in blends}
    untilted = _lists(split, blends, forecasters["counting"], 0.0)
    found: dict[str, dict[str, Lists]] = {f"{OURS}, no tilt": untilted}
    for kind, forecaster in forecasters.items():
        strength = fit_strength(
            forecaster["validation"], blends["validation"], validation.windows, repeat=split.repeat
        )
        print(f"tilt to {kind}: strength {strength:g}", flush=True)
        found[f"{OURS}, tilted to {kind}"] = _lists(split, blends, forecaster, strength)
    return found


def _blends(
    split: Split, settings: Mapping[str, Settings], tuned: tuple[LanguageModel, Codec] | None
) -> Iterator[tuple[str, Blend]]:
    """Give the blend of each stage: scorers fitted anew, weights of validation."""
    joined = [peer for peer in _peers(split) if peer.name in settings and peer.name not in ALONE]
    weights: Sequence[float] = ()
    for name in ("validation", *split.tests):
        stage = split.stage(name)
        scorers = list(_scorers(split, stage, joined, settings, tuned))
        if name == "validation":
            likeliest = fit_blend(scorers, stage.windows, repeat=split.repeat)
            weights = sharpened(likeliest, stage.windows, repeat=split.repeat, k=K).weights
            told = zip((scorer.name for scorer in scorers), weights, strict=True)
            print(", ".join(f"{scorer} {weight:.3f}" for scorer, weight in told), flush=True)
        yield name, Blend(scorers, weights)


def _peers(split: Split) -> list[Peer]:
    return on_films() if split.dataset.name == "ml-100k" else on_groceries()


def _scorers(
    split: Split,
    stage: Stage,
    joined: Sequence[Peer],
    settings: Mapping[str, Settings],
    tuned: tuple[LanguageModel, Codec] | None,
) -> Iterator[Asked]:
    """Fit each scorer on a stage, and ask it about everybody."""
    whole = RecentPopularity(36_500.0)
    yield Asked.of(whole, stage.histories, "taken most")
    if split.repeat == "allow":
        for days in (21.0, 1000.0):
            often = PersonalRepeat(days, 30.0)
            yield Asked.of(often, stage.histories, f"taken before, half-life {days:g} days")
    for peer in joined:
        scorer: Any = peer.build(settings[peer.name], stage, split.dataset.catalog, 0)
        if isinstance(scorer, ItemToItem):
            scorer.floor = FLOOR
        yield Asked.of(scorer, stage.histories, peer.name)
    if tuned is not None:
        yield Asked.of(ForetoldItems(*tuned), stage.histories, "titles foretold")


def _lists(
    split: Split,
    blends: Mapping[str, Blend],
    forecasters: Mapping[str, Forecaster],
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
    about = AdapterAbout.load(adapter)
    model = LanguageModel.load(about.base_model, adapter=adapter)
    budget = int(about.config["budget"])
    return model, codec_for(split.dataset, model, template=about.prompt, budget=budget)


def _forecaster(
    model: LanguageModel, codec: Codec, counting: DecayedDirichlet, validation: Stage
) -> LLMForecaster:
    titles = ForetoldTitles(model, codec, counting).fit(validation.windows)
    forecaster = LLMForecaster(model, codec, titles if titles.share else counting)
    fitted = forecaster.fit(validation.windows)
    print(f"titles trusted with {titles.share:g}, reading with a = {fitted.a:.3f}", flush=True)
    return forecaster


def _key(history: History) -> tuple[int, int]:
    return history.user_idx, history.event_ids.stop
