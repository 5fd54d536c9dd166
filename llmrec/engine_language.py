"""The language model of an engine: loaded, and weighed against what numbers alone give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmrec.data.calendar import to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.provenance import has_fingerprint
from llmrec.data.splits import sample_windows, was_trained_on
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS
from llmrec.engine_fit import FittedEngine, held_out_forecaster
from llmrec.engine_folder import CALIBRATION_FILE
from llmrec.engine_settings import EngineSettings
from llmrec.errors import DataError
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.forecasters.selective import SelectiveForecaster
from llmrec.language.adapters import SEEN_METRICS, AdapterMetadata
from llmrec.ranking.blend import Blend, PrecomputedScorer
from llmrec.ranking.registry import LM_SCORER
from llmrec.ranking.weights import choose_added_weight

if TYPE_CHECKING:
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster
    from llmrec.language.codec import Codec
    from llmrec.language.model import LanguageModel
    from llmrec.language.prefixes import PrefixCache


@dataclass(frozen=True, eq=False)
class LoadedLanguage:
    """A language model, the format of its prompts, and the calibration in an engine's folder.

    Attributes
    ----------
    calibration
        Of these very weights; None: their scores are not used.
    stored_calibration
        What the folder has, whether or not it is of these weights.
    why
        Why there is no calibration.
    about
        What the adapter, or the merged model, learned from; None: it does not say.
    is_selective
        Whether only people are read for whom the calibration shows that it helps.
    """

    model: LanguageModel
    codec: Codec
    calibration: Calibration | None = None
    stored_calibration: Calibration | None = None
    why: str = "no calibration was fitted"
    about: AdapterMetadata | None = None
    is_selective: bool = False

    def bare(self) -> LoadedLanguage:
        """Give the same without a calibration: the model words, and its scores are not used."""
        return replace(
            self, calibration=None, stored_calibration=None, why="the fit did not use the model"
        )

    def continue_prompts(
        self,
        *,
        max_bytes: int = 2**30,
        precision: Literal["float16", "float32"] = "float16",
        folder: Path | None = None,
        merge_step: int = 1,
    ) -> PrefixCache:
        """Let the model read on from what it read of a person before, from now on: for live use.

        Forecasts say in their source how much of a prompt had been read. See `PrefixCache`, which
        is given: ``counts`` are of prompts, ``n_bytes`` of its memory.

        Parameters
        ----------
        max_bytes, precision, folder
            As of `PrefixCache`.
        merge_step
            As of `Codec`: with 16, a prompt beyond its budget is read anew at every 16th tick
            alone, and not at each. Prompts are then others than those of the engine without.

        Raises
        ------
        DataError
            If one of them cannot be.
        """
        from llmrec.language.continuing import continue_prompts

        if merge_step < 1:
            raise DataError(f"merge_step is {merge_step}; it should be at least 1")
        self.codec.merge_step = merge_step
        options: dict[str, Any] = {"max_bytes": max_bytes, "precision": precision, "folder": folder}
        return continue_prompts(self.model, **options)

    def forget(self, person: str) -> None:
        """Drop all that the model keeps of a person's prompts."""
        from llmrec.language.continuing import forget_prompts

        forget_prompts(self.model, person)

    @property
    def title_scorers(self) -> dict[str, ItemScorer]:
        """The model as a scorer of items, by its name in blends, if it has title embeddings."""
        from llmrec.ranking.lm_scorer import LMItemScorer

        if self.model.title_embeddings is None:
            return {}
        return {LM_SCORER: LMItemScorer(self.model, self.codec)}

    def forecaster(self, prior: Forecaster, titles: float = 0.0) -> Forecaster:
        """Put the model on top of a prior, for everybody or for those whom it helps."""
        found = self.calibrated_forecaster(prior, titles)
        groups = () if self.calibration is None else self.calibration.groups
        if self.is_selective and groups:
            return SelectiveForecaster(found, prior, groups)
        return found

    def calibrated_forecaster(self, prior: Forecaster, titles: float = 0.0) -> LLMForecaster:
        """Put the share of titles and the calibrated scores on top of a prior."""
        from llmrec.forecasters.llm import LLMForecaster, TitleForecaster

        if titles and self.calibration is not None and self.model.title_embeddings is not None:
            prior = TitleForecaster(self.model, self.codec, prior, titles)
        return LLMForecaster(
            self.model, self.codec, prior, self.calibration, fallback_reason=self.why
        )


def is_llm_installed() -> bool:
    """Whether the packages of the llm extra are there."""
    return all(find_spec(name) is not None for name in ("torch", "transformers", "peft"))


def require_model_options(options: Mapping[str, Any]) -> None:
    """Refuse what `LanguageModel.load` does not take, before anything is fitted."""
    from llmrec.language.model import LanguageModel

    try:
        signature(LanguageModel.load).bind_partial("", **options)
    except TypeError as error:
        hint = "; write= of version 0.1 is describe=" if "write" in options else ""
        raise TypeError(f"from_pretrained() {error}{hint}") from None


def selective_language(
    language: LoadedLanguage, settings: EngineSettings, name: str
) -> tuple[LoadedLanguage, str]:
    """Give a model that forecasts for those people alone whom it helps, or say why it cannot."""
    why = ""
    if language.calibration is not None and not language.calibration.groups:
        why = f"engine {name} does not know whom its model helps: it is read for everybody."
    elif settings.blend.get(LM_SCORER):
        why = f"lists of engine {name} need the titles that its model expects of everybody."
    return replace(language, is_selective=True), why


def load_language(
    dataset: Dataset,
    settings: EngineSettings,
    calibration: Path | None,
    why: str,
    options: Mapping[str, Any],
) -> LoadedLanguage:
    """Load the model of settings, and a folder's calibration if it is of that very model.

    ``calibration`` is the folder; ``why`` says why there is none.
    """
    from llmrec.forecasters.calibration import Calibration
    from llmrec.language.codec import codec_for
    from llmrec.language.model import LanguageModel

    model = LanguageModel.load(settings.model, **options)
    codec = codec_for(dataset, model, template=settings.template, budget=settings.budget)
    about = AdapterMetadata.load_if_present(
        Path(model.adapter or settings.model), verify=settings.is_verified
    )
    if about is not None:
        about.require_compatible(model.base_fingerprint, codec.labels, codec.template)
    bare = LoadedLanguage(model, codec, why=why or "no calibration was fitted", about=about)
    if calibration is None or not (calibration / CALIBRATION_FILE).is_file():
        return bare
    at_hand = Calibration.load(calibration / CALIBRATION_FILE, dataset.catalog.categories)
    if not at_hand.suits(model.fingerprint):
        why = "the stored calibration is of another model or precision"
        return replace(bare, stored_calibration=at_hand, why=why)
    return replace(bare, calibration=at_hand, stored_calibration=at_hand)


@dataclass(frozen=True, eq=False)
class CalibratedLanguage:
    """What a language model adds to a fit.

    Attributes
    ----------
    language
        With its calibration.
    titles
        Share of the expected titles in the forecast.
    blend
        With the titles among the scorers, if they help.
    report
        Plain values: what each adds, on how many windows.
    """

    language: LoadedLanguage
    titles: float
    blend: Blend
    validation_blend: Blend
    windows: Sequence[Window]
    report: dict[str, Any]


def calibrate_language(
    language: LoadedLanguage,
    fitted: FittedEngine,
    dataset: Dataset,
    n_windows: int | None,
    seed: int,
    leave_out: Callable[[Window], bool] | None,
) -> CalibratedLanguage:
    """Give the model the weight that it earns on top of what was fitted, on the last period.

    Raises as `draw_calibration_windows` does.
    """
    from llmrec.forecasters.llm import TitleForecaster

    lists = fitted.list_selection
    known = fitted.windows if lists is None else lists.windows
    windows = draw_calibration_windows(known, language, dataset, n_windows, seed, leave_out)
    assert lists is not None  # without a fit there are fewer windows
    assert fitted.held_out is not None
    histories = [window.history for window in windows]
    prior: Forecaster = held_out_forecaster(fitted.held_out, windows)
    titles = 0.0
    if language.model.title_embeddings is not None:
        of_titles = TitleForecaster(language.model, language.codec, prior).fit(windows)
        titles = of_titles.share
        prior = of_titles if titles else prior
    calibration = language.calibrated_forecaster(prior).fit(windows)
    language = replace(language, calibration=calibration, stored_calibration=calibration)
    report = {
        "windows": len(windows),
        "titles": titles,
        "a": calibration.a,
        "gain": list(calibration.gain),
    }
    blend, validation = fitted.blend, lists.validation_blend
    for name, scorer in language.title_scorers.items():
        part = PrecomputedScorer.of(scorer, histories)
        weight = choose_added_weight(validation, part, windows, repeat=dataset.repeat, seed=seed)
        report[name] = weight
        if weight:
            blend = replace(
                blend, scorers=(*blend.scorers, scorer), weights=(*blend.weights, weight)
            )
            validation = Blend((*validation.scorers, part), (*validation.weights, weight))
    return CalibratedLanguage(language, titles, blend, validation, windows, report)


def draw_calibration_windows(
    windows: Sequence[Window],
    language: LoadedLanguage,
    dataset: Dataset,
    n_windows: int | None,
    seed: int,
    leave_out: Callable[[Window], bool] | None,
) -> list[Window]:
    """Draw those of the last period's windows that a model is calibrated on.

    Raises
    ------
    DataError
        If there are too few windows, or the adapter learned from this log up to a time after the
        start of one and nothing says which to leave out.
    """
    usable = [window for window in windows if leave_out is None or not leave_out(window)]
    drawn = sample_windows(usable, n_windows, seed)
    if leave_out is None:
        require_not_trained_on(drawn, language.about, dataset.name)
    if len(drawn) < MIN_CALIBRATION_WINDOWS:
        raise DataError(
            f"{len(drawn)} validation windows are too few to calibrate on; at least "
            f"{MIN_CALIBRATION_WINDOWS} are needed. Without, forecasts fall back to counting."
        )
    return drawn


def find_trained_windows(
    about: AdapterMetadata | None, dataset: Dataset
) -> Callable[[Window], bool] | None:
    """Say which windows of a log an adapter has learned from; None: it is of another log.

    If the log changed since, nobody can tell: `draw_calibration_windows` refuses earlier windows.
    """
    if about is None or about.dataset != dataset.name:
        return None
    if not has_fingerprint(dataset, about.data_fingerprint):
        return None
    return was_trained_on(dataset, include_validation=SEEN_METRICS in about.metrics)


def require_not_trained_on(
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
            "leave_out=was_trained_on(dataset), of llmrec.data.splits."
        )
