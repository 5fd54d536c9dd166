"""InterestEngine: the stages wired together, from a user's id to explained recommendations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.data.dataset import Dataset
from llmrec.data.ids import format_id
from llmrec.data.periods import History, Window, batches_by_log
from llmrec.data.splits import sample_windows
from llmrec.data.validation import is_frame
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS, last_period_windows
from llmrec.engine_config import load_engine_parts, require_not_trained_on, title_scorers
from llmrec.engine_folder import CALIBRATION_FILE, EngineSettings, save_engine
from llmrec.errors import DataError
from llmrec.explain.describe import describe_from_claims, describe_with_model
from llmrec.explain.item import reword
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.fitting import build_blend, fit_ranking, registered_weights
from llmrec.session import Recommendation, SessionInputs, UserSession
from llmrec.types import RepeatPolicy

if TYPE_CHECKING:
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster


SCORES_PER_BATCH = 20_000_000  # of all scorers, people and items together: 160 MB


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
        stored_calibration: Calibration | None = None,
        later_users: Collection[str] = (),
    ) -> None:
        self.dataset, self.cutoff, self.describe = dataset, cutoff, describe
        self.forecaster, self.blend, self.settings = forecaster, blend, settings
        self._stored_calibration, self._settings_blend = stored_calibration, blend
        self._later_users = later_users

    @classmethod
    def from_pretrained(
        cls,
        name: str = "smollm2-135m",
        *,
        data: Dataset | str | Path | None = None,
        cutoff: np.datetime64 | str | None = None,
        describe: bool = True,
        refit: bool = False,
        **model_options: Any,
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
            and are used for cutoffs after they were fitted; for anything else, a folder that was
            fitted on another log included, counting and blend are fitted here, and the model's
            scores have no weight until `fit`.
        cutoff
            Start of the period to forecast; default: the end of the log.
        describe
            Whether the model words the descriptions; what they say is true either way.
        refit
            Fit counting and blend here even if the folder has fitted settings; its calibration is
            left out, until `fit`.
        model_options
            Passed to `LanguageModel.load`: device, dtype, adapter, quantize. A calibrated engine's
            model is loaded in the precision that it was calibrated in, if none is given.

        Warns
        -----
        UserWarning
            If the folder was fitted on another log, the stored calibration is missing or of other
            weights than these (another precision, another adapter), or the model has title
            embeddings and no calibration: it says what is left out, and the way out.

        Raises
        ------
        DataError
            If an engine's folder is broken or lacks a file, or was fitted on what lies after the
            cutoff.
        """
        parts = load_engine_parts(name, data, cutoff, refit, model_options)
        if parts.warning:
            warnings.warn(parts.warning, stacklevel=2)
        return cls(
            parts.dataset,
            parts.cutoff,
            parts.forecaster,
            parts.blend,
            parts.settings,
            describe=describe,
            stored_calibration=parts.stored_calibration,
            later_users=parts.later_users,
        )

    def history(self, user_id: object) -> History:
        """Give a user's history up to the cutoff; DataError names near ids if there is none."""
        return self.histories([self._user_index(user_id)])[0]

    def histories(self, users: Sequence[int] | None = None) -> list[History]:
        """Give the histories of user indices (default: everybody)."""
        return self.dataset.histories(self.cutoff, users)

    def session(
        self,
        user: object,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
        forecast: Forecast | None = None,
    ) -> UserSession:
        """Open a session for one person; after `fit`, open another.

        Parameters
        ----------
        user
            An id of the log, a `History`, or a frame of the events of somebody who is not in the
            log, see `Dataset.new_user_history`.
        edits
            Changes to the forecast that the list follows.
        strength
            How hard the forecast tilts the list, in [0, 100]; default: as fitted.
        repeat
            Whether items already taken may be listed; default: the log's own rule.
        forecast
            A forecast made before, so that none is made.

        Raises
        ------
        DataError
            If the user is unknown (near ids are named), or the frame cannot be used.
        EditError
            If edits contradict each other, or the strength is out of bounds.
        """
        inputs = self._session_inputs(self._histories([user])[0], self.blend, forecast, repeat)
        return UserSession(inputs, edits=edits, strength=strength)

    def forecast(self, user: object) -> Forecast:
        """Forecast one person's next period, in numbers and in checked words."""
        return self.session(user).forecast

    def forecast_many(self, users: Iterable[object]) -> list[Forecast]:
        """Forecast many people in one batch (frames one by one), each as `forecast` does."""
        histories, found = self._histories(users), dict[int, Forecast]()
        for places in batches_by_log(histories, max(1, len(histories))):
            batch = [histories[place] for place in places]
            found |= zip(places, self._forecast_batch(batch), strict=True)
        return [found[place] for place in range(len(histories))]

    def recommend(
        self, user: object, k: int = 10, *, calibrate: float = 0.0, model_words: bool = False
    ) -> list[Recommendation]:
        """Recommend k items to one person: `UserSession.recommend` of a new session."""
        return self.session(user).recommend(k, calibrate=calibrate, model_words=model_words)

    def recommend_many(
        self, users: Iterable[object], k: int = 10, *, calibrate: float = 0.0
    ) -> list[list[Recommendation]]:
        """Recommend to many people in one batch (frames one by one), each as `recommend` does.

        Scores are held of so many people at once that they stay below `SCORES_PER_BATCH`.
        """
        histories, found = self._histories(users), dict[int, list[Recommendation]]()
        size = max(1, SCORES_PER_BATCH // (self.dataset.catalog.n_items * len(self.blend.scorers)))
        for places in batches_by_log(histories, size):
            batch = [histories[place] for place in places]
            forecasts, blend = self._forecast_batch(batch), self.blend.precompute(batch)
            for place, history, forecast in zip(places, batch, forecasts, strict=True):
                session = UserSession(self._session_inputs(history, blend, forecast))
                found[place] = session.recommend(k, calibrate=calibrate)
        return [found[place] for place in range(len(histories))]

    def fit(
        self,
        n_windows: int | None = 500,
        *,
        seed: int = 0,
        leave_out: Callable[[Window], bool] | None = None,
    ) -> InterestEngine:
        """Calibrate category scores and titles on the last period before the cutoff.

        Where the model has title embeddings, blend and strength of the tilt are fitted anew, with
        titles among the scorers.

        Parameters
        ----------
        n_windows
            As many windows, drawn at random; None: all.
        leave_out
            Says of a window that it is not to be used: an adapter may have learned from it. See
            `llmrec.data.splits.was_trained_on`.

        Raises
        ------
        DataError
            If there are too few windows, or the model's adapter learned from this log up to a time
            after the start of one and nothing says which to leave out; nothing has changed then.
        """
        from llmrec.forecasters.llm import TitleForecaster

        found = last_period_windows(self.dataset.log, self.dataset.catalog, self.dataset.period)
        usable = [window for window in found if leave_out is None or not leave_out(window)]
        windows = sample_windows(usable, n_windows, seed)
        if leave_out is None:
            require_not_trained_on(windows, self._adapter_metadata(), self.dataset.name)
        forecaster, counting = self.forecaster, DecayedDirichlet(**self.settings.counting)
        if (
            forecaster.model.title_embeddings is not None
            and len(windows) >= MIN_CALIBRATION_WINDOWS
        ):
            titles = TitleForecaster(forecaster.model, forecaster.codec, counting).fit(windows)
            forecaster.prior = titles if titles.share else counting
            self.settings = replace(self.settings, titles=titles.share)
        forecaster.fit(windows)
        self.settings = replace(self.settings, precision=forecaster.model.precision)
        if scorer := title_scorers(forecaster):
            blend, strength = fit_ranking(self.dataset, windows, forecaster, scorer)
            self.settings = replace(self.settings, blend=blend, strength=strength)
            self.blend = self._settings_blend = build_blend(
                self.dataset, self.cutoff, blend, scorer
            )
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
        settings = self.settings
        if self.blend is not self._settings_blend:
            settings = replace(settings, blend=registered_weights(self.blend))
        calibration = self.forecaster.calibration or self._stored_calibration
        if calibration is None and (folder / CALIBRATION_FILE).exists():
            raise DataError(
                f"{folder / CALIBRATION_FILE} is of another fit, and this engine has none instead: "
                "call engine.fit(), or save into another folder."
            )
        adapter = Path(self.forecaster.model.adapter) if settings.adapter else None
        save_engine(folder, settings, adapter, calibration)

    def _adapter_metadata(self) -> AdapterMetadata | None:
        return AdapterMetadata.load_if_present(
            Path(self.forecaster.model.adapter or self.settings.model)
        )

    def _forecast_batch(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast histories of one log."""
        model, codec = self.forecaster.model, self.forecaster.codec
        forecasts = self.forecaster.forecast(histories)
        if self.describe:
            return describe_with_model(model, codec, histories, forecasts)
        return [describe_from_claims(*pair, {}) for pair in zip(histories, forecasts, strict=True)]

    def _session_inputs(
        self,
        history: History,
        blend: Blend,
        forecast: Forecast | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> SessionInputs:
        return SessionInputs(
            history,
            blend,
            self.settings.strength,
            repeat or self.dataset.repeat,
            lambda history: forecast or self._forecast_batch([history])[0],
            lambda explanations: reword(self.forecaster.model, explanations),
        )

    def _histories(self, users: Iterable[object]) -> list[History]:
        """Give the history of each user: as it is, looked up by id, or made of a frame."""
        if isinstance(users, str) or is_frame(users):
            raise DataError("users are a list, such as [user]; of one person ask session(user)")
        users = list(users)
        ids = [user for user in users if not isinstance(user, History) and not is_frame(user)]
        known = iter(self.histories([self._user_index(user) for user in ids]))
        return [self._history_of(user) or next(known) for user in users]

    def _user_index(self, user_id: object) -> int:
        if format_id(user_id) in self._later_users:
            raise DataError(
                f"user {str(user_id)[:80]!r} has no event before the cutoff {self.cutoff}, and so "
                "no history yet: give a later cutoff."
            )
        return self.dataset.log.user_index(user_id)

    def _history_of(self, user: object) -> History | None:
        if is_frame(user):
            return self.dataset.new_user_history(user, self.cutoff)
        if not isinstance(user, History):
            return None
        if not user.catalog.item_ids.equals(self.dataset.catalog.item_ids):
            raise DataError(f"the history of user {user.user_id!r} is of another catalog than this")
        return user
