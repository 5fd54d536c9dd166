"""An engine's settings: plain values, read from and written to JSON, each of them checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, get_args

import numpy as np

from llmrec.data.calendar import to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.files import HASH_KEY, atomic_write_text, require_values_hash, with_values_hash
from llmrec.data.json_values import UNREADABLE, describe_error, read_json_object
from llmrec.data.provenance import log_fingerprints
from llmrec.data.text_times import DAY_FIRST
from llmrec.data.versions import FIRST_VERSION, __version__, rename_keys, unknown_keys
from llmrec.data.versions import SCORERS as OLD_SCORERS
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet, PopulationMix
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.registry import LM_SCORER, POPULARITY_BLEND, SCORERS

SETTINGS_FILE = "engine.json"
# Of the folder. 1 holds settings, calibration and adapter, and fits the rest when loaded; 2 has no
# hash of the settings themselves.
FORMAT = 3
N_FORGOTTEN = "n_forgotten"  # in the report of a fit: its people who were forgotten since
Effort = Literal["quick", "standard", "best"]
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
    """What an engine folder says in its engine.json: plain values.

    Attributes
    ----------
    model, template, budget
        Base model, "" for an engine without one; prompt version, and tokens a prompt may have.
    counting, blend
        Of format 1: fields of `DecayedDirichlet`, and names of scorers with their weights. Format 2
        has folders for what forecasts and what ranks.
    strength, edit_strength
        How hard the forecast, and what edits change of it, tilt the ranking (0: not at all). With 1
        an edit "3 times as much" triples the odds of the category's items. Until version 0.3 there
        was one strength for both.
    new_strength
        How hard the forecast tilts lists of items that nobody has taken yet.
    titles
        Share of the expected titles in the prior, see `TitleForecaster`.
    adapter
        Folder of the adapter inside the model, beside the settings' file; "" if there is none.
    precision
        What the model was loaded in when it was calibrated, and is to be loaded in again, see
        `LanguageModel.precision`; "auto" where it was not calibrated.
    dataset
        Name of the log, which `load_dataset` takes if it is one of those that it knows.
    period, data, fitted_before
        Length of the periods, fingerprint of the log, and the time at or after which nothing was
        used: what the fit is good for.
    trained_before
        The same of nets, trees, calibration and the choice of members, where statistics of items
        were fitted again later (`InterestEngine.refresh`); else "".
    cutoff
        Of the engine, at or after ``fitted_before``; "" in folders that do not say it.
    format
        Of the folder.
    effort, seed
        Of the fit; "" where nothing was fitted.
    noun, person, verb, repeat
        As in `Dataset`.
    dates
        "day-first" or "month-first": how the log's texts of times are read; "" where none tells.
    catalog
        Fingerprint of the catalog.
    n_users, n_events
        Of the log that was fitted on.
    report
        The figures by which members were chosen, see `llmrec.engine_fit`.
    platforms
        Names of those that the log was joined of, see `Dataset.join`.
    parts
        The other files of the folder, with the SHA-256 of each ("" in format 1).
    is_verified
        Whether these are the settings that were saved, and files beside them are to be compared
        with their hashes, too; it is not saved.
    """

    model: str = "smollm2-135m"
    template: str = "forecast-v1"
    budget: int = 300
    counting: Mapping[str, Any] = field(default_factory=dict)
    blend: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    edit_strength: float = 1.0
    new_strength: float = 0.0
    titles: float = 0.0
    adapter: str = ""
    precision: str = "auto"
    dataset: str = ""
    period: str = ""
    data: str = ""
    fitted_before: str = ""
    trained_before: str = ""
    cutoff: str = field(default="", compare=False)
    format: int = 1
    effort: str = ""
    seed: int = 0
    noun: str = ""
    person: str = ""
    verb: str = ""
    repeat: str = ""
    dates: str = ""
    catalog: str = ""
    n_users: int = 0
    n_events: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    platforms: Sequence[str] = field(default=(), compare=False)  # as in the catalog
    parts: Mapping[str, str] = field(default_factory=dict, compare=False)
    is_verified: bool = field(default=True, compare=False)

    @classmethod
    def load(cls, path: Path, *, verify: bool = True) -> EngineSettings:
        """Read settings.

        Parameters
        ----------
        verify
            Whether to refuse settings that are not as they were saved.

        Raises
        ------
        DataError
            If a field is unknown, holds what it cannot, or was changed since.
        """
        try:
            values = read_json_object(path)
            saved = dict(values)
            version = values.pop("version", FIRST_VERSION)
            is_hashed = values.pop(HASH_KEY, None) is not None or values.get("format") == FORMAT
            _check_format(values, version)
            if isinstance(parts := values.get("parts"), list):  # of format 1
                values["parts"] = dict.fromkeys(map(str, parts), "")
            _check_kinds("", values, asdict(cls()))
            blend = rename_keys(values.get("blend", {}), OLD_SCORERS)
            for given, known in (
                (values, [one.name for one in fields(cls) if one.name != "is_verified"]),
                (values.get("counting", {}), [*DecayedDirichlet().to_dict()]),
                (blend, [*SCORERS, LM_SCORER]),
            ):
                if unknown := unknown_keys(given, known, version):
                    raise ValueError(unknown)
            _check_values(values | {"blend": blend})
            if verify and is_hashed:
                require_values_hash(saved)
            values.setdefault("edit_strength", values.get("strength", cls.strength))
            return cls(**values | {"blend": blend, "is_verified": verify})
        except UNREADABLE as error:
            raise DataError(f"{path} is no engine's settings: {describe_error(error)}") from error

    def save(self, path: Path) -> None:
        """Write the settings, which version of this package wrote them, and a hash of all that."""
        values = {"version": __version__} | asdict(self)
        del values["is_verified"]
        atomic_write_text(path, json.dumps(with_values_hash(values), indent=1))

    def without_adapter(self, model: str) -> EngineSettings:
        """Give the same for a base model without an adapter."""
        plain = replace(self.without_titles(), model=model, adapter="", precision="auto")
        if not self.adapter:
            return plain
        return replace(plain, template=EngineSettings.template, budget=EngineSettings.budget)

    def without_model(self) -> EngineSettings:
        """Give the same for an engine without a language model."""
        plain = replace(self.without_titles(), model="", adapter="", precision="auto")
        report = {name: found for name, found in self.report.items() if name != "llm"}
        return replace(plain, report=report)

    def without_titles(self) -> EngineSettings:
        """Give the same for a model without title embeddings, or without a calibration of them."""
        if self.is_whole:
            return replace(self, titles=0.0)
        blend = {name: weight for name, weight in self.blend.items() if name != LM_SCORER}
        return replace(self, titles=0.0, blend=blend if any(blend.values()) else POPULARITY_BLEND)

    def with_adapter_prompt(self, adapter_folder: Path) -> EngineSettings:
        """Write prompts like those that an adapter, or a merged model, was trained on."""
        about = AdapterMetadata.load_if_present(adapter_folder, verify=self.is_verified)
        if about is None:
            return self
        budget = int(about.config.get("budget", self.budget))
        return replace(self, template=about.prompt, budget=budget)

    @property
    def is_whole(self) -> bool:
        """Whether the folder holds all that was learned."""
        return self.format > 1

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


def _check_format(values: Mapping[str, Any], version: str) -> None:
    """Raise ValueError for a folder that a later version of this package wrote."""
    found = values.get("format", 1)
    if isinstance(found, int) and found > FORMAT:
        raise ValueError(
            f"it is of format {found}, written by llmrec {version}; this is {__version__}, which "
            f"reads up to format {FORMAT}: pip install --upgrade llmrec"
        )


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
    platforms = _number_entries("platforms", values.get("platforms", ()))
    _check_kinds("", platforms, dict.fromkeys(platforms, ""))
    parts = values.get("parts", {})
    _check_kinds("parts.", parts, dict.fromkeys(parts, ""))
    named = {"adapter": values.get("adapter", "")} | {f"parts.{path}": path for path in parts}
    for name, path in named.items():
        forms = PurePosixPath(path), PureWindowsPath(path)
        if any(form.anchor or ".." in form.parts for form in forms):
            raise ValueError(f"{name} is {_shorten(path)}; it should be a path inside the folder")
    if (dates := values.get("dates", "")) not in ("", *DAY_FIRST):
        allowed = " or ".join(map(repr, ("", *DAY_FIRST)))
        raise ValueError(f"dates is {_shorten(dates)}; it should be {allowed}")
    for name in ("fitted_before", "trained_before", "cutoff"):
        if time := values.get(name):
            to_datetime64(time)


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
