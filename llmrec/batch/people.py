"""Forecasts and lists of many people from their events, as tables; who fails is set apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec.batch.events import REJECTED
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, truncate_log
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID
from llmrec.engine import InterestEngine
from llmrec.engine_config import ModelChoice
from llmrec.errors import DataError
from llmrec.session import UserSession

Reasons = Literal["none", "short", "causes"]
NO_EVENT = "no event before the cutoff"
_ROW = "row"
RECOMMENDATIONS = pa.schema(
    [
        (USER_ID, pa.string()),
        ("rank", pa.int32()),
        (ITEM_ID, pa.string()),
        ("title", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)
FORECASTS = pa.schema(
    [
        (USER_ID, pa.string()),
        ("n_events", pa.int64()),
        ("categories", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),
        ("other", pa.float64()),
        ("description", pa.string()),
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
        None: without the language model that the engine has.
    events_per_shard
        About how many events are in memory, and in a file of what comes out.
    """

    k: int = 10
    reasons: Reasons = "short"
    n_categories: int = 20
    cutoff: str | None = None
    model: ModelChoice = "auto"
    events_per_shard: int = 200_000

    def __post_init__(self) -> None:
        """Raise a DataError if a value is not possible."""
        if self.reasons not in get_args(Reasons):
            raise DataError(f"reasons {self.reasons!r}: write {', '.join(get_args(Reasons))}.")
        for name in ("k", "n_categories", "events_per_shard"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it should be at least 1.")


@dataclass(frozen=True, eq=False)
class BatchTables:
    """What was made of some events.

    Attributes
    ----------
    recommendations
        A row a person and rank (`RECOMMENDATIONS`); reason is null where there are no words.
    forecasts
        A row a person (`FORECASTS`), categories of most weight first.
    rejected
        People for whom nothing could be made (`REJECTED`), and why.
    """

    recommendations: pa.Table
    forecasts: pa.Table
    rejected: pa.Table

    @classmethod
    def join(cls, parts: Sequence[BatchTables]) -> BatchTables:
        """Put tables below each other; at least one."""
        return cls(
            pa.concat_tables([one.recommendations for one in parts]),
            pa.concat_tables([one.forecasts for one in parts]),
            pa.concat_tables([one.rejected for one in parts]),
        )


def make_tables(
    engine: InterestEngine, events: pa.Table, options: BatchOptions, *, in_order: bool = False
) -> BatchTables:
    """Forecast and recommend to everybody in a table of events (`llmrec.batch.events.EVENTS`).

    Nobody's events are counted in what everybody took: that is as the engine knows it. Each person
    gets what ``engine.session(their events)`` would say. Whoever fails is set apart, and the others
    are served.
    """
    histories, without = _histories(engine, events, in_order)
    rows = _Rows(engine.dataset.catalog, options)
    rejected = [(None, None, user, None, NO_EVENT) for user in without]
    for history, failure in _serve(engine, histories, options, rows):
        rejected.append((None, None, history.user_id, None, failure))
    columns = zip(*rejected, strict=True) if rejected else [[] for _ in REJECTED]
    table = [pa.array(list(one), field.type) for one, field in zip(columns, REJECTED, strict=True)]
    return BatchTables(*rows.tables(), pa.table(table, schema=REJECTED))


def _histories(
    engine: InterestEngine, events: pa.Table, in_order: bool
) -> tuple[list[History], list[str]]:
    """Give the histories before the engine's cutoff, and the ids of those who have none."""
    if not len(events):
        return [], []
    dataset, cutoff = engine.dataset, engine.cutoff
    frame = pd.DataFrame(
        {
            USER_ID: events[USER_ID].to_pandas(),
            ITEM_ID: dataset.catalog.item_ids[events["item"].to_numpy()],
            TIMESTAMP: events[TIMESTAMP].to_numpy(),
            _ROW: np.arange(len(events)),
        }
    )
    log = Interactions.from_frame(
        frame,
        identity=[_ROW] if in_order else (),
        bot_events_per_day=None,
        keep_outliers=True,
        in_file_order=in_order,
    ).align_to(dataset.catalog)
    has_past = np.zeros(log.n_users, dtype=bool)
    has_past[log.user_idx[log.timestamp < cutoff]] = True
    without = [str(user) for user in log.user_ids[~has_past]]
    if not has_past.any():
        return [], without
    log = replace(truncate_log(log, cutoff), day_first=dataset.log.day_first)
    return replace(dataset, log=log, population=dataset.everybody).histories(cutoff), without


def _serve(
    engine: InterestEngine, histories: list[History], options: BatchOptions, rows: _Rows
) -> Iterator[tuple[History, str]]:
    """Add the rows of everybody, and yield who failed, and why.

    Where somebody fails the halves are tried apart, down to a single person.
    """
    if not histories:
        return
    try:
        opened = engine.sessions(histories, words=options.reasons != "none")
        made = [rows.of(session) for _, session in opened]
    except Exception as error:  # whatever it is: the others are to be served
        if len(histories) == 1:
            yield histories[0], f"{type(error).__name__}: {error}"
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
        return _to_table(flat, RECOMMENDATIONS), _to_table(self._forecasts, FORECASTS)


def _to_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, one.type) for column, one in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)
