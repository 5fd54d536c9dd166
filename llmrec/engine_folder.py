"""An engine's folder: its settings, the files that belong to it, and the log it was fitted on."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from llmrec.data.calendar import to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text
from llmrec.data.provenance import log_fingerprints
from llmrec.data.versions import (
    CONFIG_KEYS,
    FIRST_VERSION,
    __version__,
    rename_keys,
    unknown_keys,
)
from llmrec.data.versions import SCORERS as OLD_SCORERS
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet, PopulationMix
from llmrec.language.adapters import (
    ADAPTER_FILE,
    CATEGORY_HEAD_FILE,
    LORA_FILES,
    TITLE_EMBEDDINGS_FILE,
    AdapterMetadata,
)
from llmrec.ranking.registry import LM_SCORER, POPULARITY_BLEND, SCORERS

if TYPE_CHECKING:
    from llmrec.forecasters.calibration import Calibration


SETTINGS_FILE, CALIBRATION_FILE = "engine.json", "calibration.json"
ADAPTER_FOLDER = "adapter"  # inside an engine's folder
_NUMBER, _LIST = ((int, float), "a number"), ((list,), "a list")
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {  # of JSON, by the kind of a field's default
    str: ((str,), "text"),
    int: ((int,), "a whole number"),
    float: _NUMBER,
    dict: ((dict,), "an object"),
    list: _LIST,
    tuple: _LIST,
}


@dataclass(frozen=True)
class EngineSettings:
    """What an engine folder holds beside its calibration: plain values, stored as JSON.

    Attributes
    ----------
    model, template, budget
        Base model, prompt version, and tokens a prompt may have.
    counting
        Fields of `DecayedDirichlet`.
    blend
        Name of a scorer, see `llmrec.ranking.registry`, to its weight; those of 0 are not built.
    strength
        How hard the forecast tilts the ranking (0: not at all).
    titles
        Share of the expected titles in the prior, see `TitleForecaster`.
    adapter
        Folder of the adapter inside the model, beside the settings' file; "" if there is none.
    precision
        What the model was loaded in when it was calibrated, and is to be loaded in again; "auto"
        where it was not calibrated.
    dataset
        Name of the log, which `load_dataset` takes if it is one of those that it knows.
    period, data, fitted_before
        Length of the periods, fingerprint of the log, and the time at or after which nothing was
        used: what the fit is good for.
    parts
        The other files that the folder had when it was saved; earlier versions list none.
    """

    model: str = "smollm2-135m"
    template: str = "forecast-v1"
    budget: int = 300
    counting: Mapping[str, Any] = field(default_factory=dict)
    blend: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    titles: float = 0.0
    adapter: str = ""
    precision: str = "auto"
    dataset: str = ""
    period: str = ""
    data: str = ""
    fitted_before: str = ""
    parts: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def load(cls, path: Path) -> EngineSettings:
        """Read settings; DataError names a field that is unknown or holds what it cannot."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("version", FIRST_VERSION)
            _check_kinds("", values, asdict(cls()))
            blend = rename_keys(values.get("blend", {}), OLD_SCORERS)
            for given, known in (
                (values, [one.name for one in fields(cls)]),
                (values.get("counting", {}), [*DecayedDirichlet().to_dict()]),
                (blend, [*SCORERS, LM_SCORER]),
            ):
                if unknown := unknown_keys(given, known, version):
                    raise ValueError(unknown)
            _check_values(values | {"blend": blend})
            return cls(**values | {"blend": blend, "parts": tuple(values.get("parts", ()))})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is no engine's settings: {error}") from error

    def save(self, path: Path) -> None:
        """Write the settings, and which version of this package wrote them."""
        atomic_write_text(path, json.dumps({"version": __version__} | asdict(self), indent=1))

    def without_adapter(self, model: str) -> EngineSettings:
        """Give the same for a base model without an adapter."""
        plain = replace(self.without_titles(), model=model, adapter="", precision="auto")
        if not self.adapter:
            return plain
        return replace(plain, template=EngineSettings.template, budget=EngineSettings.budget)

    def without_titles(self) -> EngineSettings:
        """Give the same for a model without title embeddings, or without a calibration of them."""
        blend = {name: weight for name, weight in self.blend.items() if name != LM_SCORER}
        return replace(self, titles=0.0, blend=blend if any(blend.values()) else POPULARITY_BLEND)

    def with_adapter_prompt(self, adapter_folder: Path) -> EngineSettings:
        """Write prompts like those that an adapter, or a merged model, was trained on."""
        about = AdapterMetadata.load_if_present(adapter_folder)
        if about is None:
            return self
        budget = int(about.config.get("budget", self.budget))
        return replace(self, template=about.prompt, budget=budget)

    def is_of(self, dataset: Dataset) -> bool:
        """Whether they were fitted on this log, which may have grown since."""
        if not self.fitted_before:
            return False
        try:
            return self.data in log_fingerprints(dataset, to_datetime64(self.fitted_before))
        except DataError:  # nothing had happened by then
            return False

    def valid_for(self, dataset: Dataset, cutoff: np.datetime64) -> bool:
        """Whether they were fitted on this very log and period, and on nothing after the cutoff."""
        if not self.fitted_before or to_datetime64(self.fitted_before) > cutoff:
            return False
        return self.period == dataset.period and self.is_of(dataset)


def _check_values(values: Mapping[str, Any]) -> None:
    """Raise ValueError for a value inside a field that it cannot hold."""
    counting, blend = values.get("counting", {}), values["blend"]
    _check_kinds("counting.", counting, DecayedDirichlet().to_dict())
    spread = _number_entries("counting.spread", counting.get("spread", []))
    _check_kinds("", spread, dict.fromkeys(spread, 0.0))
    if counting.get("mix", "all") not in get_args(PopulationMix):
        allowed = " or ".join(map(repr, get_args(PopulationMix)))
        raise ValueError(f"counting.mix is {_shorten(counting['mix'])}; it should be {allowed}")
    DecayedDirichlet(**counting)  # whose spread has two numbers at most
    _check_kinds("blend.", blend, dict.fromkeys(blend, 0.0))
    for name, weight in blend.items():
        if weight < 0:
            raise ValueError(f"blend.{name} is {weight}; it should be at least 0")
    paths = _number_entries("parts", values.get("parts", [])) | {
        "adapter": values.get("adapter", "")
    }
    _check_kinds("", paths, dict.fromkeys(paths, ""))
    for name, path in paths.items():
        forms = PurePosixPath(path), PureWindowsPath(path)
        if any(form.anchor or ".." in form.parts for form in forms):
            raise ValueError(f"{name} is {_shorten(path)}; it should be a path inside the folder")
    if before := values.get("fitted_before"):
        to_datetime64(before)


def _number_entries(name: str, entries: Sequence[Any]) -> dict[str, Any]:
    return {f"{name}[{place}]": entry for place, entry in enumerate(entries)}


def _check_kinds(where: str, values: Mapping[Any, Any], defaults: Mapping[Any, Any]) -> None:
    """Raise ValueError for a value of another kind than its default; unknown names pass."""
    for name, value in values.items():
        if name not in defaults:
            continue
        kinds, word = _KINDS[type(defaults[name])]
        infinite = isinstance(value, float) and not math.isfinite(value)
        if type(value) not in kinds or infinite:  # True is no number here
            raise ValueError(f"{where}{name} is {_shorten(value)}; it should be {word}")


def _shorten(value: Any) -> str:
    shown = repr(value)
    return f"{shown[:60]}..." if len(shown) > 63 else shown


def bundled_engine(dataset: str) -> Path:
    """Where the package keeps the fitted engine of an embedded log; of others it has none."""
    return Path(str(resources.files("llmrec"))) / "engines" / Path(dataset).name


def is_engine(name: str) -> bool:
    """Whether a name is that of an engine's folder.

    Raises
    ------
    DataError
        If the folder has other files of an engine, and no settings.
    """
    folder = Path(name)
    if (folder / SETTINGS_FILE).is_file():
        return True
    if (folder / "config.json").is_file():  # a model's
        return False
    parts = (CALIBRATION_FILE, *(f"{ADAPTER_FOLDER}/{one}" for one in (ADAPTER_FILE, *LORA_FILES)))
    if found := [part for part in parts if (folder / part).is_file()]:
        raise DataError(
            f"{folder / SETTINGS_FILE} is missing, though {found[0]} is there: copy the whole "
            "folder of the engine, or save it again."
        )
    return False


def fitted_dataset(name: str) -> str:
    """Name the log that an engine's folder was fitted on; of anything else the default one."""
    file = Path(name) / SETTINGS_FILE
    return (EngineSettings.load(file).dataset if file.is_file() else "") or "ml-100k"


def save_engine(
    folder: Path, settings: EngineSettings, adapter: Path | None, calibration: Calibration | None
) -> None:
    """Write an engine's folder, its settings last; they list the files beside them."""
    own, parts = folder / settings.adapter, list[str]()
    if adapter is not None:
        if own.absolute() != adapter.absolute():
            shutil.copytree(adapter, own, dirs_exist_ok=True)
        files = (*adapter.glob("*.json"), *adapter.glob("*.safetensors"))
        parts += sorted(f"{settings.adapter}/{file.name}" for file in files)
    if calibration is not None:
        calibration.save(folder / CALIBRATION_FILE)
        parts.append(CALIBRATION_FILE)
    replace(settings, parts=tuple(parts)).save(folder / SETTINGS_FILE)


def has_lost_calibration(folder: Path, settings: EngineSettings) -> bool:
    """Whether a folder lacks its calibration: an engine works without, and says so."""
    return CALIBRATION_FILE in _missing_parts(folder, settings)


def require_parts(folder: Path, settings: EngineSettings) -> None:
    """Raise DataError if a file of the engine is missing, but for its calibration."""
    missing = [part for part in _missing_parts(folder, settings) if part != CALIBRATION_FILE]
    if missing:
        raise DataError(
            f"{folder / missing[0]} is missing, without which the engine is another one: copy the "
            "whole folder of the engine, or save it again."
        )


def log_difference(
    folder: Path, settings: EngineSettings, dataset: Dataset, categories: tuple[str, ...]
) -> str:
    """Say what an engine was fitted on instead of this log; "" if it was fitted on it.

    ``categories`` are those that are known before the cutoff.
    """
    fitted, name = settings.dataset, dataset.name
    if not settings.is_of(dataset):
        if not (fitted and settings.fitted_before):
            return "fitted on a log that its settings do not name"
        if fitted == name:
            return f"fitted on another log called {name!r}, or before the past of this one changed"
        return f"fitted on {fitted!r}, not on this log ({name!r})"
    if settings.period != dataset.period:
        return f"fitted on {fitted!r} in periods of {settings.period}, not of {dataset.period}"
    if _stored_categories(folder, settings) not in (None, categories):
        return f"fitted on {fitted!r} with other categories"
    return ""


def _stored_categories(folder: Path, settings: EngineSettings) -> tuple[str, ...] | None:
    """Give the categories that an engine's calibration or adapter is of; None: it has neither."""
    path = folder / CALIBRATION_FILE
    if settings.adapter and (about := AdapterMetadata.load_if_present(folder / settings.adapter)):
        return about.categories
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["categories"])
    except (OSError, ValueError, KeyError, TypeError):  # a broken file is refused when it is used
        return None


def _missing_parts(folder: Path, settings: EngineSettings) -> list[str]:
    expected = settings.parts or _expected_parts(folder, settings)
    return [part for part in expected if not (folder / part).is_file()]


def _expected_parts(folder: Path, settings: EngineSettings) -> list[str]:
    """List what the folder of an earlier version must have, as far as its files say it."""
    parts = [] if settings.precision == "auto" else [CALIBRATION_FILE]
    if not settings.adapter:
        return parts
    adapter, names = folder / settings.adapter, list(LORA_FILES)
    about = AdapterMetadata.load_if_present(adapter)
    if settings.template != EngineSettings.template:  # only adapter.json asks for another one
        names.append(ADAPTER_FILE)
    if about is not None and "head_rank" in rename_keys(about.config, CONFIG_KEYS):
        names.append(CATEGORY_HEAD_FILE)
    if settings.titles or LM_SCORER in settings.blend:
        names += [CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE]
    return parts + [f"{settings.adapter}/{name}" for name in names]
