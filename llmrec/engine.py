"""InterestEngine: the stages wired together, from a user's id to explained recommendations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.data.calendar import Anchor
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.engine_config import (
    DEFAULT_MODEL,
    EngineParts,
    ModelChoice,
    load_engine_parts,
    save_parts,
)
from llmrec.engine_forget import ForgettingEngine
from llmrec.engine_people import find_batches, find_histories, precompute_by_block
from llmrec.engine_refit import FitPlan, refit_parts
from llmrec.engine_settings import Effort
from llmrec.explain.describe import describe_forecasts, describe_with_model
from llmrec.explain.writer import Completer, DescriptionWriter, as_completer
from llmrec.forecast import Forecast
from llmrec.forecasters.horizon import require_horizon
from llmrec.ranking.edits import Edit
from llmrec.session import UserSession
from llmrec.session_inputs import Recommendation, blend_of_shelf, inputs_of_engine
from llmrec.types import RepeatPolicy, Shelf


class InterestEngine(ForgettingEngine):
    """Forecasts a person's next period, ranks items from it, and explains each.

    Usage::

        engine = InterestEngine.from_pretrained(data="completejourney")
        print(engine.forecast("1823").description)
        for item in engine.recommend("1823", k=10):
            print(item.rank, item.title, item.why)

    Attributes
    ----------
    dataset
        The log before ``cutoff``; of an engine loaded without it, what serves people by events.
    cutoff
        The forecast period starts here.
    forecaster, blend
        What forecasts, the language model included if there is one, and what ranks.
    settings
        What `save_pretrained` writes; ``settings.report`` has the figures of the fit.
    writer
        What words the descriptions in the model's place; ``counts`` tell what became of them.
    """

    def __init__(
        self, parts: EngineParts, *, describe: bool = False, writer: Completer | None = None
    ) -> None:
        super().__init__(parts)
        self.describe = describe
        self.writer = None if writer is None else DescriptionWriter(writer, parts.dataset)

    @classmethod
    def from_pretrained(
        cls,
        name: str = DEFAULT_MODEL,
        *,
        data: Dataset | str | Path | None = None,
        cutoff: np.datetime64 | str | None = None,
        model: ModelChoice = "auto",
        describe: bool = False,
        writer: Completer | str | None = None,
        refit: bool = False,
        anchor: Anchor | None = None,
        **model_options: Any,
    ) -> InterestEngine:
        """Load an engine, or make one for a log.

        Parameters
        ----------
        name
            A folder that `save_pretrained` wrote, or a base model: "smollm2-135m" (embedded), or
            another that `LanguageModel.load` takes.
        data
            A `Dataset`, or what `load_dataset` takes; default: none for a saved engine, else
            "ml-100k". Engines of the embedded logs ship with the package, for cutoffs after they
            were fitted; for any other log effort "quick" of `fit` is fitted here.
        cutoff
            Start of the period to forecast; default: a saved engine's, or a later end of the log.
        model
            None: none. "auto": the one that the name has, if the llm extra is installed; with
            "selective" it forecasts for those people alone whom its calibration shows to gain.
        describe
            Whether the model words the descriptions, which takes a second each; else rules do.
        writer
            A server, or its URL, that words them in the model's place; it is sent titles.
        refit
            Fit on ``data`` whatever the folder has; its calibration is left out, until `fit`.
        anchor
            Where people's periods begin, see `Dataset`: "calendar" for live use; None: as of it.
        model_options
            Of `LanguageModel.load`: device, dtype, adapter, quantize, backend. A calibrated
            engine's model is loaded as it was calibrated, if nothing else is given.

        Warns
        -----
        UserWarning
            If the folder is of another log, its calibration is missing or of other weights or
            precision, the model has title embeddings and no calibration, or the log has items that
            the engine does not know: it says what is left out, and the way out.

        Raises
        ------
        DataError
            If a folder is broken, not as it was saved, or was fitted on what is after the cutoff.
        """
        completer = as_completer(writer)
        parts = load_engine_parts(name, data, cutoff, model, refit, model_options)
        if anchor is not None:
            parts = replace(parts, dataset=replace(parts.dataset, anchor=anchor))
        if parts.warning:
            warnings.warn(parts.warning, stacklevel=2)
        return cls(parts, describe=describe, writer=completer)

    def history(self, user_id: object) -> History:
        """Give a user's history up to the cutoff; DataError names near ids if there is none."""
        return find_histories(self._parts, [user_id])[0]

    def histories(self, users: Sequence[int] | None = None) -> list[History]:
        """Give the histories of user indices (default: everybody)."""
        parts = self._parts
        return parts.dataset.histories(parts.cutoff, users)

    def session(
        self,
        user: object,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
        forecast: Forecast | None = None,
        shelf: Shelf = "all",
        platform: str | None = None,
    ) -> UserSession:
        """Open a session for one person; after `fit`, open another.

        Parameters
        ----------
        user
            An id of the log, a `History`, or a frame of events, see `Dataset.new_user_history`.
        edits
            Changes to the forecast that the list follows.
        strength
            How hard forecast and edits tilt the list, in [0, 100]; default: each as fitted.
        repeat
            Whether items already taken may be listed; default: the log's own rule.
        forecast
            A forecast made before, so that none is made.
        shelf
            "new" ranks only the items that nobody has taken yet, by titles and features.
        platform
            Of several that were joined: only its items are ranked. The forecast stays that of all
            platforms; ``within(dataset.platforms.categories(platform))`` restricts it.

        Raises
        ------
        DataError
            If user (near ids are named) or platform is unknown, or the frame cannot be used.
        EditError
            If edits contradict each other, or the strength is out of bounds.
        """
        parts = self._parts
        (history,) = find_histories(parts, [user])
        rest = forecast, repeat, shelf, platform
        inputs = inputs_of_engine(parts, history, self._forecast_batch, *rest)
        return UserSession(inputs, edits=edits, strength=strength)

    def forecast(self, user: object, horizon: int = 1) -> Forecast:
        """Forecast one person's next period, or a later one, in numbers and in checked words.

        Parameters
        ----------
        horizon
            Which period after the cutoff, 1 (the next one) to 4. Later ones are of numbers alone,
            fitted on the log when first asked for; statements have no probabilities.

        Raises
        ------
        DataError
            If the user is unknown, or the horizon is none or beyond what the log allows.
        """
        is_next = horizon == 1
        return self.session(user).forecast if is_next else self.forecast_many([user], horizon)[0]

    def forecast_many(self, users: Iterable[object], horizon: int = 1) -> list[Forecast]:
        """Forecast many people in one batch (frames one by one), each as `forecast` does."""
        require_horizon(horizon)
        found: dict[int, Forecast] = {}
        for places, batch in find_batches(self._parts, users):
            found |= zip(places, self._forecast_batch(batch, horizon=horizon), strict=True)
        return [found[place] for place in range(len(found))]

    def recommend(
        self,
        user: object,
        k: int = 10,
        *,
        shelf: Shelf = "all",
        platform: str | None = None,
        **options: Any,
    ) -> list[Recommendation]:
        """Recommend k items to one person: `UserSession.recommend`, whose options are taken."""
        return self.session(user, shelf=shelf, platform=platform).recommend(k, **options)

    def recommend_many(
        self,
        users: Iterable[object],
        k: int = 10,
        *,
        shelf: Shelf = "all",
        platform: str | None = None,
        **options: Any,
    ) -> list[list[Recommendation]]:
        """Recommend to many people in batches (frames one by one), each as `recommend` does."""
        opened = self.sessions(users, shelf=shelf, platform=platform)
        found = {place: session.recommend(k, **options) for place, session in opened}
        return [found[place] for place in range(len(found))]

    def sessions(
        self,
        users: Iterable[object],
        *,
        shelf: Shelf = "all",
        platform: str | None = None,
        words: bool = True,
    ) -> Iterator[tuple[int, UserSession]]:
        """Yield people's places and sessions, a batch at a time; ``words``: whether to describe."""
        parts = self._parts
        blend = blend_of_shelf(shelf, parts.blend, parts.new_items)
        for places, batch in find_batches(parts, users, len(parts.blend.scorers)):
            scored = precompute_by_block(blend, batch)
            forecasts = self._forecast_batch(batch, True, words=words)
            for place, history, own, forecast in zip(places, batch, scored, forecasts, strict=True):
                rest = forecast, None, shelf, platform, own
                inputs = inputs_of_engine(parts, history, self._forecast_batch, *rest)
                yield place, UserSession(inputs)

    def fit(
        self,
        effort: Effort = "standard",
        *,
        seed: int = 0,
        leave_out: Callable[[Window], bool] | None = None,
        use_llm: bool | None = None,
        n_windows: int | None = 500,
        without: Collection[str] = (),
        work_folder: Path | str | None = None,
        show: Callable[[str], None] | None = None,
    ) -> InterestEngine:
        """Fit what forecasts and ranks on the log, and choose its members on the last period.

        Parameters
        ----------
        effort
            "quick": counting, corrected by nets of other logs, and statistics of items, in seconds.
            "standard": a mixture of numeric forecasters, more statistics, and trees over them.
            "best": nets trained on the log among both, and the language model. A log that is too
            small for an effort gets the one that it is large enough for, with a warning.
        seed
            Of what is trained or drawn.
        leave_out
            Says of a window that an adapter may have learned from it, and that the model is not to
            be calibrated on it; default with effort "best": `llmrec.data.splits.was_trained_on`.
        use_llm
            Whether the model's scores and titles get the weight that they earn; None: with "best".
        n_windows
            That many windows, drawn at random, are read by the model; None: all.
        without
            Names of members not to use, see ``settings.report``.
        work_folder
            Where nets are stored when they are trained: a fit that was killed goes on from there.
        show
            Is given a line of progress for each member, with the time left.

        Raises
        ------
        DataError
            If the engine has no log or no model to use, the effort or a member is unknown, or the
            model cannot be calibrated (`calibrate_language`); nothing has changed then.
        """
        plan = FitPlan(effort, seed, leave_out, use_llm, n_windows, (*without,), work_folder, show)
        with self._refreshing, self._writing:
            self._take(refit_parts(self._parts, plan))
        return self

    def save_pretrained(self, folder: Path | str, *, with_catalog: bool = True) -> None:
        """Write all that was learned; `from_pretrained` needs nothing else, not even the log.

        What was loaded and could not be used is written as it was. Of events that were appended
        those counts are written that are of everybody, not who took what.

        Parameters
        ----------
        with_catalog
            Whether catalog and population are written, too; else it is for those who have the log.

        Raises
        ------
        DataError
            If the blend or the forecaster holds something that cannot be stored, or the folder a
            calibration that this engine has nothing to replace with; nothing is written then.
        """
        save_parts(self._parts, Path(folder), with_catalog=with_catalog)

    def _forecast_batch(
        self, histories: Sequence[History], keep: bool = False, horizon: int = 1, words: bool = True
    ) -> list[Forecast]:
        """Forecast histories of one log, see `describe_forecasts`."""
        if horizon != 1:
            ahead = self._parts.later_periods[horizon]
            return describe_forecasts(histories, ahead.forecast(histories))
        known = self._parts.statements
        made = [replace(one, statement_model=known) for one in self.forecaster.forecast(histories)]
        if words and self.writer is not None:
            return self.writer.describe(histories, made)
        if words and self.describe and self.language is not None:
            return describe_with_model(self.language.model, self.language.codec, histories, made)
        return describe_forecasts(histories, made, remember=keep) if words else made
