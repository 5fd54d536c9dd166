"""What an engine's folder says of itself, read without a log and without loading a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmrec.data.embedded import is_embedded
from llmrec.data.versions import FIRST_VERSION
from llmrec.engine_figures import (
    ForecastInfo,
    LanguageInfo,
    ListInfo,
    StatementKindInfo,
    read_interval,
    read_number,
    statement_lines,
)
from llmrec.engine_folder import (
    ADAPTER_FOLDER,
    CALIBRATION_FILE,
    CATALOG_FILE,
    bundled_engine,
    is_engine,
    require_parts,
)
from llmrec.engine_settings import N_FORGOTTEN, SETTINGS_FILE, EngineSettings
from llmrec.errors import DataError
from llmrec.forecasters.selective import GainGroup
from llmrec.language.adapters import ADAPTER_FILE, LORA_FILES, AdapterMetadata
from llmrec.ranking.registry import LM_SCORER


@dataclass(frozen=True)
class EngineInfo:
    """What an engine's folder says of itself; all its files were checked.

    Attributes
    ----------
    folder, version, format
        Where it is, which llmrec wrote it, and in which format.
    dataset, period, fitted_before
        The log that it was fitted on, and the time at or after which nothing was used.
    trained_before
        The same of all but statistics of items, where these were fitted again; else "".
    n_forgotten
        People it was fitted on who were forgotten since, by `InterestEngine.forget`.
    n_users, n_events, n_items
        Of that log; 0 where the folder does not say, None where the catalog is that of an embedded
        log.
    effort, asked, reason
        Effort that was done and the one asked for, and why they differ; "" where not known.
    statements
        By kind; () where they have no probabilities.
    forecast, ranking, language
        None where nothing was fitted, or the format has no figures; None without a language model.
    strength, edit_strength
        How hard the forecast tilts the list, and how hard edits do.
    counting, blend
        Of format 1: settings of counting, and weights of scorers that are fitted when it is loaded.
    sizes
        Bytes of each part.
    n_files, are_hashed
        Number of files beside the settings, and whether they were compared with what was saved.
    """

    folder: str
    version: str
    format: int
    dataset: str
    period: str
    fitted_before: str
    trained_before: str
    n_forgotten: int
    n_users: int
    n_events: int
    n_items: int | None
    effort: str
    asked: str
    reason: str
    seed: int
    forecast: ForecastInfo | None
    statements: tuple[StatementKindInfo, ...]
    ranking: ListInfo | None
    language: LanguageInfo | None
    strength: float
    edit_strength: float
    counting: Mapping[str, Any]
    blend: Mapping[str, float]
    sizes: Mapping[str, int]
    n_files: int
    are_hashed: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Say it in lines; rows of tables have at most 80 characters, sentences may be longer."""
        no_model = ["None: descriptions are made of checked statements."]
        return [
            f"Engine {self.folder}",
            *_indent(_fit_lines(self)),
            *_section("Forecast", _forecast_lines(self)),
            *_section("Statements about the next period", statement_lines(self.statements)),
            *_section("List", _list_lines(self)),
            *_section("Language model", self.language.lines() if self.language else no_model),
            *_section("Files", _file_lines(self)),
        ]


def describe_engine(folder: Path | str) -> EngineInfo:
    """Read what an engine's folder says of itself, and check that it is whole.

    Parameters
    ----------
    folder
        What `InterestEngine.save_pretrained` wrote; or the name of an embedded log, for the engine
        of it that ships with the package.

    Raises
    ------
    DataError
        If it is no engine's folder, or one of its files is missing or is not the one that was
        saved; it names the file.
    """
    folder = _find_folder(Path(folder))
    path = folder / SETTINGS_FILE
    settings = EngineSettings.load(path)
    require_parts(folder, settings)
    files = _files(folder, settings)
    report = settings.report
    try:
        return EngineInfo(
            folder=str(folder),
            version=json.loads(path.read_text(encoding="utf-8")).get("version", FIRST_VERSION),
            n_items=_count_items(folder / CATALOG_FILE),
            n_forgotten=int(report.get(N_FORGOTTEN, 0)),
            asked=str(report.get("asked", "")),
            reason=str(report.get("reason", "")),
            forecast=ForecastInfo.of_report(report),
            statements=StatementKindInfo.of_report(report),
            ranking=ListInfo.of_report(report),
            language=_language_info(folder, settings),
            sizes=_sizes(files),
            n_files=len(files) - 1,
            are_hashed=settings.is_whole,
            **{name: getattr(settings, name) for name in _TAKEN_OVER},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} holds a report that cannot be read ({type(error).__name__}: {error}): copy "
            "the whole folder of the engine again, or fit it again."
        ) from error


_TAKEN_OVER = (
    "format",
    "dataset",
    "period",
    "fitted_before",
    "trained_before",
    "n_users",
    "n_events",
    "effort",
    "seed",
    "strength",
    "edit_strength",
    "counting",
    "blend",
)


def _find_folder(folder: Path) -> Path:
    """Give the folder of an engine; DataError says what is there instead."""
    if not folder.exists() and is_embedded(str(folder)) and bundled_engine(str(folder)).is_dir():
        return bundled_engine(str(folder))
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}: give the folder of an engine, as `llmrec fit` writes.")
    if is_engine(str(folder)):
        return folder
    for name, what in (
        *((name, "an adapter") for name in (ADAPTER_FILE, *LORA_FILES)),
        ("config.json", "a language model"),
    ):
        if (folder / name).is_file():
            raise DataError(
                f"{folder} holds {what} ({name}) and no {SETTINGS_FILE}: it is no engine. "
                "finetune/calibrate_engine.py makes one of an adapter, `llmrec fit` of a model."
            )
    raise DataError(f"{folder} holds no {SETTINGS_FILE}: it is no engine. `llmrec fit` writes one.")


def _language_info(folder: Path, settings: EngineSettings) -> LanguageInfo | None:
    """Read what the language model adds, of the calibration's own file."""
    if not settings.model:
        return None
    found: dict[str, Any] = dict(settings.report.get("llm", {}))
    path = folder / CALIBRATION_FILE
    groups: tuple[GainGroup, ...] = ()
    if path.is_file():
        try:
            found |= json.loads(path.read_text(encoding="utf-8"))
            groups = tuple(GainGroup.from_values(one) for one in found.get("groups", ()))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no calibration: {error}. Fit the engine again.") from error
    about = AdapterMetadata.load_if_present(folder / settings.adapter) if settings.adapter else None
    learned = "" if about is None else f"{about.dataset} before {about.cutoff}"
    title_weight = found.get(LM_SCORER, settings.blend.get(LM_SCORER, 0.0))
    return LanguageInfo(
        model=settings.model,
        adapter=learned,
        precision=settings.precision,
        titles=settings.titles,
        title_weight=float(title_weight),
        a=read_number(found.get("a")),
        gain=read_interval(found.get("gain")),
        groups=groups,
    )


def _files(folder: Path, settings: EngineSettings) -> list[Path]:
    """List the files of an engine, as paths that exist; its settings first."""
    parts = [folder / part for part in settings.parts]
    if not settings.is_whole:
        parts = [folder / CALIBRATION_FILE, *(folder / ADAPTER_FOLDER).glob("*")]
    return [folder / SETTINGS_FILE, *(part for part in parts if part.is_file())]


def _sizes(files: Sequence[Path]) -> dict[str, int]:
    """Sum the bytes of files by the part of the engine that they are of."""
    root, sizes = files[0].parent, dict[str, int]()
    for file in files:
        part = file.relative_to(root).parts[0]
        name = {SETTINGS_FILE: "settings"}.get(part, part.split(".")[0])
        sizes[name] = sizes.get(name, 0) + file.stat().st_size
    return sizes


def _count_items(path: Path) -> int | None:
    if not path.is_file():
        return None
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def _fit_lines(info: EngineInfo) -> list[str]:
    """Say what was fitted on what, and why it is not what was asked for."""
    counts = {"people": info.n_users, "events": info.n_events, "items": info.n_items}
    known = [f"{n:,} {what}" for what, n in counts.items() if n]
    period = f"; periods of {info.period}" if info.period else ""
    before = info.fitted_before.replace("T", " ") or "an unknown time"
    lines = [
        f"Log: {', '.join([info.dataset or 'not named', *known])}{period}.",
        f"Fitted on events before {before}.",
    ]
    if trained := info.trained_before.replace("T", " "):
        lines.append(f"That are statistics of items; the rest was fitted before {trained}.")
    if info.n_forgotten:
        lines.append(
            f"Since then {info.n_forgotten:,} of these people were forgotten: what is no statistic "
            "of items has seen them."
        )
    done = f"Effort {info.effort}" if info.effort else "Too small a log to choose members by"
    effort = f"{done}, seed {info.seed}; written" if info.asked else "Written"
    lines.append(f"{effort} by llmrec {info.version}.")
    if info.reason:
        lines.append(f"{info.asked!r} was asked for, but {info.reason.rstrip('.')}.")
    if info.format == 1:
        lines.append(
            "Its format is 1: it has no figures of its members, and what ranks is fitted when it "
            "is loaded, on its log. `llmrec fit` writes an engine that is whole."
        )
    return lines


def _forecast_lines(info: EngineInfo) -> list[str]:
    if info.forecast is not None:
        return info.forecast.lines()
    if not info.counting:
        return ["Counting with default settings."]
    named = [f"{name} {info.counting.get(name)}" for name in ("decay", "strength", "mix")]
    return [f"Counting: {', '.join(named)}."]


def _list_lines(info: EngineInfo) -> list[str]:
    strengths = f"strength {info.strength:g}, edits with {info.edit_strength:g}"
    tilt = f"The forecast tilts it with {strengths}."
    if info.ranking is not None:
        return [*info.ranking.lines(), tilt]
    if not info.blend:
        return ["What the person took, or popular items and those with close titles.", tilt]
    ordered = sorted(info.blend.items(), key=lambda one: -one[1])
    return [f"Blend: {', '.join(f'{name} {weight:.3f}' for name, weight in ordered)}.", tilt]


def _file_lines(info: EngineInfo) -> list[str]:
    total = f"{_size(sum(info.sizes.values()))} in all"
    if info.are_hashed:
        checked = f"All {info.n_files} are there, each as it was saved: {total}."
    else:
        checked = f"{info.n_files} are there; format 1 has no hashes to check: {total}."
    width = max(map(len, info.sizes))
    sizes = sorted(info.sizes.items(), key=lambda one: -one[1])
    return [checked, "", *_indent([f"{name:<{width}} {_size(n):>10}" for name, n in sizes])]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.1f} kB"


def _section(heading: str, lines: Sequence[str]) -> list[str]:
    return ["", heading, *_indent(lines)]


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]
