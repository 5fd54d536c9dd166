"""Forecasts and lists of many people from their events, as tables; who fails is set apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from llmrec.batch.events import REJECTED_SCHEMA, make_table
from llmrec.data.calendar import to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.new_user import log_of_people
from llmrec.data.periods import History, truncate_log
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID
from llmrec.engine import InterestEngine
from llmrec.engine_config import ModelChoice
from llmrec.engine_folder import is_engine
from llmrec.engine_settings import SETTINGS_FILE
from llmrec.errors import DataError
from llmrec.session import UserSession

Reasons = Literal["none", "short", "causes"]
NO_EVENT = "no event before the cutoff"
MIN_FAILURES = 10  # people who all fail: then something else is wrong
RECOMMENDATION_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        ("rank", pa.int32()),
        (ITEM_ID, pa.string()),
        ("title", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)
FORECAST_SCHEMA = pa.schema(
    [
        (USER_ID, pa.string()),
        ("n_events", pa.int64()),
        ("categories", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),
        ("other", pa.float64()),
        ("description", pa.string()),
        ("how", pa.string()),
    ]
)


@dataclass(frozen=True)
class BatchOptions:
    """What is made for each person.

    Attributes
    ----------
    k
        Length of the list, >= 1; shorter where fewer items may be listed.
    reasons
        "short": what an item has to do with history and forecast; "causes": what of the past put it
        there, for which items are ranked again; "none": no words at all, nor a description.
    n_categories
        How many categories a forecast names, those of most weight; "other" is the sum of the rest.
    cutoff
        Start of the period to forecast; None: the engine's own, or the end of a log that goes on
        after it.
    model
        None: without the language model that the engine has; "selective": it is read for those
        people alone whom its calibration shows to gain.
    model_options
        How it is loaded, see `LanguageModel.load`; default: as it was calibrated.
    events_per_shard
        About how many events are in memory, and in a file of what comes out; at least 50,000, and
        there are 500 files at most.
    """

    k: int = 10
    reasons: Reasons = "short"
    n_categories: int = 20
    cutoff: str | None = None
    model: ModelChoice = "auto"
    model_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    events_per_shard: int = 200_000

    def __post_init__(self) -> None:
        """Raise a DataError if a value is not possible."""
        if self.cutoff is not None:
            object.__setattr__(self, "cutoff", str(to_datetime64(self.cutoff)))
        if self.reasons not in get_args(Reasons):
            raise DataError(f"reasons {self.reasons!r}: write {', '.join(get_args(Reasons))}.")
        for name in ("k", "n_categories", "events_per_shard"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it should be at least 1.")
        if not all(isinstance(one, str) for one in self.model_options.values()):
            raise DataError(f"model_options are texts, not {dict(self.model_options)}")
        if self.model_options and self.model is None:
            raise DataError("model_options are given, and no language model is to be used")


@dataclass(frozen=True, eq=False)
class BatchTables:
    """What was made of some events.

    Attributes
    ----------
    recommendations
        A row a person and rank (`RECOMMENDATION_SCHEMA`); reason is null where there are no words.
    forecasts
        A row a person (`FORECAST_SCHEMA`), categories of most weight first; ``how`` is that of
        `Source`: "llm" where the language model changed the weights.
    rejected
        People for whom nothing could be made (`REJECTED_SCHEMA`), and why.
    n_failed
        How many of them have a past all the same.
    """

    recommendations: pa.Table
    forecasts: pa.Table
    rejected: pa.Table
    n_failed: int

    @property
    def n_by_model(self) -> int:
        """Number of people whose forecast the language model changed."""
        return int(pc.sum(pc.equal(self.forecasts["how"], "llm")).as_py() or 0)

    @classmethod
    def join(cls, parts: Sequence[BatchTables]) -> BatchTables:
        """Put tables below each other; at least one."""
        return cls(
            pa.concat_tables([one.recommendations for one in parts]),
            pa.concat_tables([one.forecasts for one in parts]),
            pa.concat_tables([one.rejected for one in parts]),
            sum(one.n_failed for one in parts),
        )


def load_engine(folder: Path | str, options: BatchOptions, **changes: Any) -> InterestEngine:
    """Load an engine to serve people by their events; ``changes`` are other options of loading.

    Raises
    ------
    DataError
        If there is no engine in the folder, or it cannot be loaded.
    """
    if not is_engine(str(folder)):
        raise DataError(f"{folder} is no engine's folder: it has no {SETTINGS_FILE}.")
    chosen: dict[str, Any] = {"cutoff": options.cutoff, "model": options.model} | changes
    if chosen["model"] is not None:
        chosen |= options.model_options
    return InterestEngine.from_pretrained(str(folder), describe=False, **chosen)


def make_tables(
    engine: InterestEngine, events: pa.Table, options: BatchOptions, *, is_clean: bool = False
) -> BatchTables:
    """Forecast and recommend to everybody in a table of events, see `EVENT_SCHEMA`.

    Nobody's events are counted in what everybody took: that is as the engine knows it. Each person
    gets what ``engine.session(their events)`` would say. Whoever fails is set apart, and the others
    are served.

    Raises
    ------
    DataError
        If all of `MIN_FAILURES` people or more fail: then it is not for something of theirs.
    """
    clear_cache(engine)
    histories, without = find_past(engine, events, is_clean)
    rows = _Rows(engine.dataset.catalog, options)
    failed = list(_serve(engine, histories, options, rows))
    if len(failed) == len(histories) >= MIN_FAILURES:
        raise DataError(f"all of {len(failed)} people fail, the first with: {failed[0][1]}")
    rejected = [*((user, NO_EVENT) for user in without), *failed]
    rows_of_table = [(None, None, user, None, reason) for user, reason in rejected]
    return BatchTables(*rows.tables(), _to_table(rows_of_table, REJECTED_SCHEMA), len(failed))


def clear_cache(engine: InterestEngine) -> None:
    """Forget the prompts of people served before: who is read together decides the last bits."""
    if engine.language is not None:
        engine.language.model.prompt_cache.clear()


def find_past(
    engine: InterestEngine, events: pa.Table, is_clean: bool
) -> tuple[list[History], list[str]]:
    """Give the histories before the engine's cutoff, and the ids of those who have none."""
    dataset = engine.dataset
    users, user_ids = pd.factorize(events[USER_ID].to_pandas(), sort=True)
    items, times, rows = (events[name].to_numpy() for name in ("item", TIMESTAMP, "row"))
    ids = pd.Index(user_ids, dtype="str")
    log = log_of_people(ids, users, items, times, rows, dataset.catalog, is_clean)
    log = replace(log, day_first=dataset.log.day_first)
    try:
        past = truncate_log(log, engine.cutoff)
    except DataError:  # nobody has an event before it
        return [], [str(user) for user in log.user_ids]
    without = log.user_ids[~log.user_ids.isin(past.user_ids)]
    known = replace(dataset, log=past, population=dataset.everybody)
    return known.histories(engine.cutoff), [str(user) for user in without]


def _serve(
    engine: InterestEngine, histories: list[History], options: BatchOptions, rows: _Rows
) -> Iterator[tuple[str, str]]:
    """Add the rows of everybody, and yield who failed, and why.

    Where somebody fails the halves are tried apart, down to a single person. Memory or a disk that
    is full is nobody's fault, and ends it.
    """
    if not histories:
        return
    try:
        opened = engine.sessions(histories, words=options.reasons != "none")
        made = [rows.of(session) for _, session in opened]
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever it is: the others are to be served
        if len(histories) == 1:
            yield histories[0].user_id, f"{type(error).__name__}: {error}"
            return
        middle = len(histories) // 2
        yield from _serve(engine, histories[:middle], options, rows)
        yield from _serve(engine, histories[middle:], options, rows)
        return
    for one in made:
        rows.add(*one)


class _Rows:
    """Rows of the two tables, as they are made."""

    def __init__(self, catalog: Catalog, options: BatchOptions) -> None:
        self.catalog, self.options = catalog, options
        self._titles = catalog.titles
        self._lists: list[list[tuple[Any, ...]]] = []
        self._forecasts: list[tuple[Any, ...]] = []

    def of(self, session: UserSession) -> tuple[list[tuple[Any, ...]], tuple[Any, ...]]:
        """Give the rows of one person: of the list, and of the forecast."""
        user, forecast = session.history.user_id, session.forecast
        best = np.argsort(-forecast.category_weights, kind="stable")[: self.options.n_categories]
        weights = forecast.category_weights[best]
        names = [self.catalog.categories[category] for category in best]
        about = (
            user,
            session.history.n_events,
            names,
            weights.tolist(),
            max(0.0, float(1 - weights.sum())),
            forecast.description,
            forecast.source.how,
        )
        return self._list_of(session, user), about

    def _list_of(self, session: UserSession, user: str) -> list[tuple[Any, ...]]:
        k, reasons = self.options.k, self.options.reasons
        if reasons == "none":
            ranking = session.ranking(k)
            return [
                (user, rank, self.catalog.ids[item], self._titles[item], score, None)
                for rank, (item, score) in enumerate(
                    zip(ranking.item_idx.tolist(), ranking.scores.tolist(), strict=True), 1
                )
            ]
        listed = session.recommend(k, causes=reasons == "causes")
        return [(user, one.rank, one.item_id, one.title, one.score, one.why) for one in listed]

    def add(self, listed: list[tuple[Any, ...]], about: tuple[Any, ...]) -> None:
        """Keep the rows of one person."""
        self._lists.append(listed)
        self._forecasts.append(about)

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Give all rows as two tables."""
        flat = [row for listed in self._lists for row in listed]
        return _to_table(flat, RECOMMENDATION_SCHEMA), _to_table(self._forecasts, FORECAST_SCHEMA)


def _to_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    return make_table(list(zip(*rows, strict=True)) or [()] * len(schema), schema)
