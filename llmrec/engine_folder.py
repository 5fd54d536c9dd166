"""An engine's folder: settings, all that was learned, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_folder, file_hash, others_in
from llmrec.data.interactions import Interactions
from llmrec.data.join import split_catalog
from llmrec.data.json_values import UNREADABLE, read_json_object
from llmrec.data.population import Population
from llmrec.data.stored import VALUES_FILE, Stored
from llmrec.data.text_times import DAY_FIRST
from llmrec.data.versions import CONFIG_KEYS, rename_keys
from llmrec.engine_settings import FORMAT, SETTINGS_FILE, EngineSettings
from llmrec.errors import DataError
from llmrec.forecasters.calibration import Calibration
from llmrec.language.adapters import (
    ADAPTER_FILE,
    CATEGORY_HEAD_FILE,
    LORA_FILES,
    TITLE_EMBEDDINGS_FILE,
    AdapterMetadata,
)
from llmrec.ranking.registry import LM_SCORER

CALIBRATION_FILE = "calibration.json"
CATALOG_FILE, POPULATION_FILE = "catalog.parquet", "population.parquet"
FORECAST_FOLDER, RANKING_FOLDER, STATEMENTS_FOLDER = "forecast", "ranking", "statements"
FITTED_PARTS = tuple(f"{folder}/{VALUES_FILE}" for folder in (FORECAST_FOLDER, RANKING_FOLDER))
NEW_ITEMS_FOLDER, HORIZON_FOLDER = "new_items", "horizon"
LEARNED_FOLDERS = (
    *(FORECAST_FOLDER, RANKING_FOLDER, STATEMENTS_FOLDER),
    *(NEW_ITEMS_FOLDER, HORIZON_FOLDER),
)
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, eq=False)
class EngineFiles:
    """What a folder is written of, beside its settings.

    Attributes
    ----------
    catalog, population
        What is known of items, and what everybody took; None: those of an embedded log.
    prior, blend
        What forecasts, without a language model, and what ranks.
    statements
        What gives probabilities to statements; None: they have none.
    new_items
        What ranks items that nobody has taken yet; None: the blend does.
    later
        What forecasts later periods than the next; None: nothing was fitted for it.
    calibration, adapter
        Of the language model; None: there is none.
    """

    catalog: Catalog | None
    population: Population | None
    prior: Stored
    blend: Stored
    statements: Stored | None = None
    new_items: Stored | None = None
    later: Stored | None = None
    calibration: Calibration | None = None
    adapter: Path | None = None


def save_engine(folder: Path, settings: EngineSettings, files: EngineFiles) -> None:
    """Write an engine's folder as one, its settings last; they list the files beside them.

    Of what is in the folder the files of an engine go away, and all others stay.
    """
    with atomic_folder(folder, others_in(folder, _own_names(folder, settings))) as new:
        if files.catalog is not None and files.population is not None:
            files.catalog.save(new / CATALOG_FILE)
            files.population.save(new / POPULATION_FILE)
        learned = (files.prior, files.blend, files.statements, files.new_items, files.later)
        for name, stored in zip(LEARNED_FOLDERS, learned, strict=True):
            if stored is not None:
                stored.save(new / name)
        if files.calibration is not None:
            files.calibration.save(new / CALIBRATION_FILE)
        if files.adapter is not None:
            shutil.copytree(files.adapter, new / settings.adapter)
        parts = sorted(_parts_in(new, new / settings.adapter))
        hashes = {path.relative_to(new).as_posix(): file_hash(path) for path in parts}
        replace(settings, format=FORMAT, parts=hashes).save(new / SETTINGS_FILE)


def _own_names(folder: Path, settings: EngineSettings) -> set[str]:
    """Give the names in an engine's folder that are its own, those of one before included."""
    own = {CATALOG_FILE, POPULATION_FILE, CALIBRATION_FILE, *LEARNED_FOLDERS, SETTINGS_FILE}
    path, before = folder / SETTINGS_FILE, dict[str, str]()
    if path.is_file():
        with suppress(DataError):  # of one that is broken nothing else is known
            before = dict(EngineSettings.load(path, verify=False).parts)
    return own | {Path(part).parts[0] for part in (settings.adapter, *before) if part}


def _parts_in(folder: Path, adapter: Path) -> Iterator[Path]:
    """Give the files that an engine is made of; a card beside its adapter is none."""
    for path in folder.rglob("*"):
        is_read = path.suffix in (".json", ".safetensors") or not path.is_relative_to(adapter)
        if path.is_file() and (is_read or adapter == folder):
            yield path


def catalog_fingerprint(catalog: Catalog) -> str:
    """Hash a catalog's item ids, categories, which item has which, and features if it has some."""
    shares, digest = catalog.category_shares, hashlib.sha256()
    for names in (catalog.item_ids.tolist(), catalog.categories):
        digest.update(json.dumps(list(names)).encode())
    for array in (shares.indptr, shares.indices):
        digest.update(array.astype("<i8").tobytes())
    digest.update(shares.data.astype("<f8").tobytes())
    for name, matrix in sorted(catalog.features.items()):
        digest.update(json.dumps([name, *matrix.shape]).encode() + matrix.astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def with_engine_features(folder: Path, settings: EngineSettings, dataset: Dataset) -> Dataset:
    """Give a log without features those that an engine was fitted with; of new items it has none.

    A log that has some, or that the engine was not fitted on, stays as it is.
    """
    path = folder / CATALOG_FILE
    if CATALOG_FILE not in settings.parts or dataset.catalog.features or not path.is_file():
        return dataset
    if file_hash(path) != settings.parts[CATALOG_FILE]:  # refused where the other parts are
        return dataset
    own = Catalog.load(path)
    if not own.features or not settings.is_of(dataset):
        return dataset
    return replace(dataset, catalog=dataset.catalog.with_features_of(own))


def load_serving_dataset(folder: Path, settings: EngineSettings) -> Dataset:
    """Make the dataset of an engine's own catalog and population: it has no log.

    DataError if its items are not those of its platforms.
    """
    catalog = Catalog.load(folder / CATALOG_FILE)
    dataset = Dataset.without_log(
        settings.dataset,
        catalog,
        Population.load(folder / POPULATION_FILE, catalog),
        period=settings.period,
        noun=settings.noun,
        person=settings.person,
        repeat="exclude" if settings.repeat == "exclude" else "allow",
        verb=settings.verb,
        day_first=DAY_FIRST.get(settings.dates),
    )
    parts = {}
    for name, own in split_catalog(catalog, settings.platforms).items():
        log = Interactions.empty(own.item_ids, day_first=dataset.log.day_first)
        parts[name] = replace(dataset, name=name, log=log, catalog=own, population=None)
    return replace(dataset, parts=parts)


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
    of_adapter = (f"{ADAPTER_FOLDER}/{one}" for one in (ADAPTER_FILE, *LORA_FILES))
    parts = (CALIBRATION_FILE, *of_adapter, CATALOG_FILE, POPULATION_FILE, *FITTED_PARTS)
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


def has_lost_calibration(folder: Path, settings: EngineSettings) -> bool:
    """Whether a folder lacks its calibration: an engine works without, and says so."""
    return CALIBRATION_FILE in _missing_parts(folder, settings)


def require_parts(folder: Path, settings: EngineSettings) -> None:
    """Raise DataError if a file of the engine is missing, or is not the one that was saved.

    Format 1 has no hashes, and may lack its calibration. Settings that were not verified ask for
    no hashes either.
    """
    missing = _missing_parts(folder, settings)
    if not settings.is_whole:
        missing = [part for part in missing if part != CALIBRATION_FILE]
    if missing:
        raise DataError(
            f"{folder / missing[0]} is missing, without which the engine is another one: copy the "
            "whole folder of the engine, or save it again."
        )
    unnamed = [part for part in FITTED_PARTS if part not in settings.parts]
    if settings.is_whole and unnamed:
        raise DataError(
            f"{folder / SETTINGS_FILE} has no hash of {unnamed[0]}: it was changed, or is of "
            "another engine. Copy the whole folder, or save the engine again."
        )
    for part, stored in settings.parts.items() if settings.is_verified else ():
        if (stored or settings.is_whole) and file_hash(folder / part) != stored:
            raise DataError(
                f"{folder / part} is not the file that was saved with this engine: it is cut off, "
                "changed, or of another engine. Copy the whole folder, or save the engine again."
            )


def log_difference(
    folder: Path, settings: EngineSettings, dataset: Dataset, catalog: Catalog
) -> str:
    """Say what an engine was fitted on instead of this log; "" if it was fitted on it.

    ``catalog`` is what is known before the cutoff.
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
    if settings.is_whole and settings.catalog != catalog_fingerprint(catalog):
        return f"fitted on {fitted!r} with other items, categories or features"
    if _stored_categories(folder, settings) not in (None, catalog.categories):
        return f"fitted on {fitted!r} with other categories"
    return ""


def _stored_categories(folder: Path, settings: EngineSettings) -> tuple[str, ...] | None:
    """Give the categories that an engine's calibration or adapter is of; None: it has neither."""
    path = folder / CALIBRATION_FILE
    if settings.adapter and (
        about := AdapterMetadata.load_if_present(
            folder / settings.adapter, verify=settings.is_verified
        )
    ):
        return about.categories
    try:
        return tuple(read_json_object(path)["categories"])
    except UNREADABLE:  # a broken file is refused when it is used
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
    about = AdapterMetadata.load_if_present(adapter, verify=settings.is_verified)
    if settings.template != EngineSettings.template:  # only adapter.json asks for another one
        names.append(ADAPTER_FILE)
    if about is not None and "head_rank" in rename_keys(about.config, CONFIG_KEYS):
        names.append(CATEGORY_HEAD_FILE)
    if settings.titles or LM_SCORER in settings.blend:
        names += [CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE]
    return parts + [f"{settings.adapter}/{name}" for name in names]
