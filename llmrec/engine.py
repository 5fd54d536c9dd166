"""InterestEngine: the stages wired together, from a user's id to explained recommendations."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.data.calendar import MILLISECOND, to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window, make_histories, truncate_log
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows
from llmrec.data.windows import last_period_windows
from llmrec.engine_config import (
    CALIBRATION_FILE,
    SETTINGS_FILE,
    EngineSettings,
    fitted_dataset,
    load_forecaster,
    resolve_settings,
    title_scorers,
    uncalibrated_warning,
    with_adapter_prompt,
)
from llmrec.errors import DataError
from llmrec.explain.counterfactual import WhyNot, why_not
from llmrec.explain.describe import describe_from_claims, describe_with_model
from llmrec.explain.explanation import Explanation, explain_ranked_item
from llmrec.explain.item import explain_item, reword
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.blend import Blend
from llmrec.ranking.calibrated_rerank import rerank_calibrated
from llmrec.ranking.edits import Edit, apply_edits
from llmrec.ranking.effects import EditEffect, predict_effect
from llmrec.ranking.fitting import build_blend, fit_ranking
from llmrec.ranking.rank import Ranking, Reranker, make_reranker, rank
from llmrec.ranking.registry import registered_name
from llmrec.session import CALIBRATION_POOL, Recommendation
from llmrec.types import RepeatPolicy

if TYPE_CHECKING:
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster


ADAPTER_FOLDER = "adapter"  # the folder inside an engine's


class InterestEngine:
    """Forecasts a person's next period, ranks items from it, and explains each.

    Usage::

        engine = InterestEngine.from_pretrained("smollm2-135m", data="completejourney")
        print(engine.forecast("1823").description)
        for item in engine.recommend("1823", k=10):
            print(item.rank, item.title, item.why)

    Attributes
    ----------
    dataset
        The log, cut at ``cutoff``: the engine cannot see anything later.
    cutoff
        The forecast period starts here.
    """

    def __init__(
        self,
        dataset: Dataset,
        cutoff: np.datetime64,
        forecaster: LLMForecaster,
        blend: Blend,
        settings: EngineSettings,
        *,
        describe: bool = True,
        at_hand: Calibration | None = None,
    ) -> None:
        self.dataset, self.cutoff, self.describe = dataset, cutoff, describe
        self.forecaster, self.blend, self.settings = forecaster, blend, settings
        self._at_hand, self._built = at_hand, blend

    @classmethod
    def from_pretrained(
        cls,
        name: str = "smollm2-135m",
        *,
        data: Dataset | str | None = None,
        cutoff: np.datetime64 | str | None = None,
        write: bool = True,
        refit: bool = False,
        **loading: Any,
    ) -> InterestEngine:
        """Load an engine for a log.

        Parameters
        ----------
        name
            A folder that `save_pretrained` wrote; or a base model: "smollm2-135m" (embedded), a
            local folder, a hub id.
        data
            A `Dataset`, or what `load_dataset` takes; default: the log that the folder was fitted
            on, else "ml-100k". Engines of the two embedded logs, fine-tuned, ship with the package
            and are used for cutoffs after they were fitted; for anything else counting and blend
            are fitted here, and the reading is not trusted until `fit`.
        cutoff
            Start of the period to forecast; default: the end of the log.
        write
            Whether the model words the descriptions; what they say is true either way.
        refit
            Fit counting and blend here even if fitted settings are at hand; a calibration at hand
            is left out, until `fit`.
        loading
            Passed to `LanguageModel.load`: device, dtype, adapter, quantize. A calibrated engine's
            model is loaded in the precision that it was calibrated in, if none is given.

        Warns
        -----
        UserWarning
            If the calibration at hand is of other weights than these (of another precision, of
            another adapter), or the model foretells titles and none says how far to trust them:
            what is left out comes back with the precision named, or with `fit`.

        Raises
        ------
        DataError
            If an engine's folder is broken, or was fitted on what lies after the cutoff.
        """
        data = data or fitted_dataset(name)
        dataset = load_dataset(data) if isinstance(data, str) else data
        end = dataset.log.timestamp.max() + MILLISECOND if cutoff is None else to_datetime64(cutoff)
        dataset = replace(dataset, log=truncate_log(dataset.log, end))
        settings, folder = resolve_settings(name, dataset, end, refit)
        if loading.get("adapter"):
            loading["adapter"] = Path(loading["adapter"])
            settings = replace(
                with_adapter_prompt(settings, loading["adapter"]), adapter=ADAPTER_FOLDER
            )
        elif settings.adapter and folder is not None:
            loading["adapter"] = folder / settings.adapter
        else:
            settings = with_adapter_prompt(settings, Path(settings.model))  # a merged model
        loading.setdefault("dtype", settings.precision)
        calibrated = None if refit else folder
        forecaster, at_hand = load_forecaster(dataset, settings, calibrated, loading)
        titles = title_scorers(forecaster)
        if not titles:
            settings = settings.without_titles()
        ranked = settings if forecaster.calibration else settings.without_titles()
        blend = build_blend(dataset, end, ranked.blend, titles)
        if not refit and forecaster.calibration is None and (at_hand or titles):
            why = uncalibrated_warning(forecaster, settings, refused=at_hand is not None)
            warnings.warn(why, stacklevel=2)
        return cls(dataset, end, forecaster, blend, settings, describe=write, at_hand=at_hand)

    def history(self, user_id: object) -> History:
        """Give a user's history up to the cutoff; DataError names near ids if there is none."""
        user = self.dataset.log.user_index(user_id)
        return self.histories([user])[0]

    def histories(self, users: Sequence[int] | None = None) -> list[History]:
        """Give the histories of user indices (default: everybody)."""
        dataset = self.dataset
        return make_histories(dataset.log, dataset.catalog, dataset.period, self.cutoff, users)

    def forecast(self, user: str | History) -> Forecast:
        """Forecast one user's next period, in numbers and in checked words."""
        return self.forecast_many([self._as_history(user)])[0]

    def forecast_many(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast many; each is what `forecast` gives."""
        forecasts = self.forecaster.forecast(histories)
        if self.describe:
            return describe_with_model(
                self.forecaster.model, self.forecaster.codec, histories, forecasts
            )
        return [describe_from_claims(*pair, {}) for pair in zip(histories, forecasts, strict=True)]

    def rank(
        self,
        user: str | History,
        k: int,
        *,
        forecast: Forecast | None = None,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> Ranking:
        """Rank the catalog for a user: the k best items with the parts of their scores."""
        history = self._as_history(user)
        forecast = forecast or self.forecast(history)
        return rank(
            [forecast],
            [history],
            self.blend,
            k=k,
            strength=self.settings.strength if strength is None else strength,
            repeat=repeat or self.dataset.repeat,
            edits=edits,
        )[0]

    def recommend(
        self,
        user: str | History,
        k: int = 10,
        *,
        forecast: Forecast | None = None,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
        calibrate: float = 0,
        in_model_words: bool = False,
    ) -> list[Recommendation]:
        """Recommend k items, each with its explanation; fewer where fewer may be listed.

        Parameters
        ----------
        forecast
            A forecast at hand, so that it is not made again.
        edits
            Changes to the forecast before the list is made; items of muted categories are left out.
            Those that a text asks for are ``parse_edits(text, catalog, engine.cutoff).edits``.
        strength
            How hard the forecast tilts the list, in [0, 100]; default: as fitted.
        repeat
            Whether items already taken may be listed; default: the log's own rule.
        calibrate
            How far the list's mix of categories follows the (edited) forecast's, in [0, 1]: 0 lists
            by score alone, 1 by the mix alone; see `llmrec.ranking.calibrated_rerank`. No score
            changes by it, and `effect`, `why_not` and `explain` are about the list by score alone.
        in_model_words
            Whether the model words the reasons, among true sentences; where its words do not hold,
            they are not shown and ``explanation.refused`` says so. `wording_note` sums that up.
        """
        history = self._as_history(user)
        forecast = forecast or self.forecast(history)
        n_ranked = max(k, CALIBRATION_POOL) if calibrate else k
        ranking = self.rank(
            history, n_ranked, forecast=forecast, edits=edits, strength=strength, repeat=repeat
        )
        if calibrate:
            edited = apply_edits(forecast, edits, history.catalog, history.cutoff)
            ranking = rerank_calibrated(ranking, edited, history.catalog, k, calibrate)
        explanations = [
            explain_item(ranking, int(position), history, forecast, edits)
            for position in np.flatnonzero(~ranking.muted)
        ]
        if in_model_words:
            explanations = reword(self.forecaster.model, explanations)
        return [Recommendation(e.item_id, e.title, e.rank, e.score, e) for e in explanations]

    def effect(
        self,
        user: str | History,
        edits: Sequence[Edit] = (),
        *,
        forecast: Forecast | None = None,
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> EditEffect:
        """Say what edits, and another strength, will do; its `verify` then ranks with them.

        Parameters
        ----------
        forecast, edits, strength, repeat
            As for `recommend`.

        Raises
        ------
        EditError
            If the edits cannot be applied or contradict each other, or the strength is out of
            bounds.
        """
        history = self._as_history(user)
        forecast, repeat = forecast or self.forecast(history), repeat or self.dataset.repeat
        fitted = self.settings.strength
        rerank = make_reranker(history, forecast, self.blend, strength=fitted, repeat=repeat)
        return predict_effect(forecast, edits, history, rerank, fitted, strength)

    def why_not(
        self,
        user: str | History,
        item_id: object,
        k: int = 10,
        *,
        forecast: Forecast | None = None,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> WhyNot:
        """Say why an item is not among the k best, and the smallest edit that would list it.

        Parameters
        ----------
        item_id
            Its id, or its whole title.
        forecast, edits, strength, repeat
            As for `recommend`: the list that they give is asked about. What would list the item
            comes on top of the edits, and the answer's ``edits`` are both together.
        """
        catalog, history = self.dataset.catalog, self._as_history(user)
        forecast = forecast or self.forecast(history)
        rerank = self._ranks_again(history, forecast, strength, repeat)
        return why_not(catalog.item_index(item_id), rerank, k, catalog, history, edits)

    def explain(
        self,
        user: str | History,
        item_id: object,
        k: int = 10,
        *,
        forecast: Forecast | None = None,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
        in_model_words: bool = False,
    ) -> Explanation:
        """Explain one item: statements, evidence, the split of its score, and what would move it.

        Parameters
        ----------
        item_id
            Its id, or its whole title.
        k
            How long the list is that it is on, or off; >= 1.
        forecast, edits, strength, repeat
            As for `recommend`: the list that they give is explained. ``change.edits`` are the
            edits with the change on top.
        in_model_words
            As for `recommend`; ``item.refused`` says why the model's words are not shown.

        Raises
        ------
        DataError
            If the user or the item is unknown; it names near ids.
        """
        catalog, history = self.dataset.catalog, self._as_history(user)
        item = catalog.item_index(item_id)
        forecast = forecast or self.forecast(history)
        rerank = self._ranks_again(history, forecast, strength, repeat)
        found = explain_ranked_item(item, rerank, k, history, forecast, edits)
        if in_model_words and found.item:
            (item_worded,) = reword(self.forecaster.model, [found.item])
            return replace(found, item=item_worded)
        return found

    def fit(
        self,
        n_windows: int | None = 500,
        seed: int = 0,
        *,
        leave_out: Callable[[Window], bool] | None = None,
    ) -> InterestEngine:
        """Fit how far titles and reading are trusted, on the last period before the cutoff.

        Where the model foretells titles, the blend and the strength of the tilt are fitted anew,
        with titles among the scorers.

        Parameters
        ----------
        n_windows
            As many windows, drawn at random; None: all.
        leave_out
            Says of a window that it is not to be used: an adapter may have learned from it. See
            `llmrec.training.dataset.learned_from`.

        Raises
        ------
        DataError
            If there are too few windows, or the model's adapter learned from this log up to a time
            after the start of one and nothing says which to leave out; nothing has changed then.
        """
        from llmrec.forecasters.calibration import MIN_WINDOWS
        from llmrec.forecasters.llm import TitleForecaster

        found = last_period_windows(self.dataset.log, self.dataset.catalog, self.dataset.period)
        kept = [window for window in found if leave_out is None or not leave_out(window)]
        windows = sample_windows(kept, n_windows, seed)
        if leave_out is None:
            _check_not_learned_from(windows, self._about(), self.dataset.name)
        forecaster, counting = self.forecaster, DecayedDirichlet(**self.settings.counting)
        if forecaster.model.title_embeddings is not None and len(windows) >= MIN_WINDOWS:
            titles = TitleForecaster(forecaster.model, forecaster.codec, counting).fit(windows)
            forecaster.prior = titles if titles.share else counting
            self.settings = replace(self.settings, titles=titles.share)
        forecaster.fit(windows)
        self.settings = replace(self.settings, precision=forecaster.model.precision)
        if scorer := title_scorers(forecaster):
            blend, strength = fit_ranking(self.dataset, windows, forecaster, scorer)
            self.settings = replace(self.settings, blend=blend, strength=strength)
            self.blend = self._built = build_blend(self.dataset, self.cutoff, blend, scorer)
        return self

    def save_pretrained(self, folder: Path | str) -> None:
        """Write settings, calibration and adapter; `from_pretrained` needs nothing else.

        What was loaded and could not be used is written as it was.

        Raises
        ------
        DataError
            If the blend holds scorers that settings have no name for, or the folder a calibration
            that this engine has nothing to replace with; nothing is written then.
        """
        folder = Path(folder)
        settings = replace(self.settings, blend=self._weights())
        calibration = self.forecaster.calibration or self._at_hand
        if calibration is None and (folder / CALIBRATION_FILE).exists():
            raise DataError(
                f"{folder / CALIBRATION_FILE} is of another fit, and this engine has none instead: "
                "call engine.fit(), or save into another folder."
            )
        own = folder / settings.adapter
        if settings.adapter and own.absolute() != Path(self.forecaster.model.adapter).absolute():
            shutil.copytree(self.forecaster.model.adapter, own, dirs_exist_ok=True)
        settings.save(folder / SETTINGS_FILE)
        if calibration is not None:
            calibration.save(folder / CALIBRATION_FILE)

    def _weights(self) -> Mapping[str, float]:
        """Give the weights of the blend by the names that settings have for its scorers."""
        if self.blend is self._built:
            return self.settings.blend
        named = [registered_name(scorer) for scorer in self.blend.scorers]
        strange = [shown for shown, name in zip(self.blend.names, named, strict=True) if not name]
        if strange:
            raise DataError(
                f"the blend holds {', '.join(map(repr, strange))}, which settings have no name for "
                "and could not make again: take them out of engine.blend before saving."
            )
        return {name: w for name, w in zip(named, self.blend.weights, strict=True) if name}

    def _about(self) -> AdapterMetadata | None:
        """Give what the adapter says of itself, if there is one."""
        return AdapterMetadata.load_if_present(
            Path(self.forecaster.model.adapter or self.settings.model)
        )

    def _ranks_again(
        self,
        history: History,
        forecast: Forecast,
        strength: float | None,
        repeat: RepeatPolicy | None,
    ) -> Reranker:
        return make_reranker(
            history,
            forecast,
            self.blend,
            strength=self.settings.strength if strength is None else strength,
            repeat=repeat or self.dataset.repeat,
        )

    def _as_history(self, user: str | History) -> History:
        return user if isinstance(user, History) else self.history(user)


def _check_not_learned_from(
    windows: Sequence[Window], about: AdapterMetadata | None, dataset: str
) -> None:
    """Refuse windows of the log that an adapter learned from if it saw what lies after a cutoff."""
    if about is None or about.dataset != dataset:
        return
    seen = sum(window.history.cutoff < to_datetime64(about.cutoff) for window in windows)
    if seen:
        raise DataError(
            f"the adapter learned from {dataset} up to {about.cutoff}, and {seen} of "
            f"{len(windows)} windows begin before: it may know what they are to validate. Give "
            "leave_out=learned_from(dataset), of llmrec.training.pairs."
        )
