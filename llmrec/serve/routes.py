"""The routes of the interface: parameters are read, a session is asked, plain values are given."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from llmrec.errors import DataError, StoreError
from llmrec.person_summary import person_summary
from llmrec.ranking.edit_parser import edit_sentences, parse_edits
from llmrec.ranking.ranking import MAX_STRENGTH
from llmrec.serve.event_checks import EventCheck
from llmrec.serve.limits import WorkerPool
from llmrec.serve.live import LiveEngine
from llmrec.serve.monitoring import ServerMetrics
from llmrec.serve.responses import PrintableJSONResponse
from llmrec.serve.schemas import (
    Deletion,
    Events,
    EventsReport,
    Health,
    Item,
    Problem,
    Reasons,
    Recommendations,
    Wish,
    WishAnswer,
    WishEdit,
)
from llmrec.serve.settings import ServeSettings
from llmrec.session import UserSession
from llmrec.types import RepeatPolicy

LOGGER = logging.getLogger(__name__)
MAX_K = 1_000
HEALTH_SECONDS = 5.0
UserId = Annotated[str, Path(examples=["1823"], description="As the log writes it.")]
ItemId = Annotated[str, Path(examples=["819312"], description="Its id, or its whole title.")]
K = Annotated[int, Query(ge=1, le=MAX_K, description="Length of the list.")]
EditTexts = Annotated[
    list[str],
    Query(
        description="What should differ, in words; again for more. `wishes` shows how it is read.",
        examples=["no Horror until March"],
    ),
]
Strength = Annotated[
    float | None,
    Query(ge=0, le=MAX_STRENGTH, description="How hard forecast and edits tilt; default: fitted."),
]
Repeat = Annotated[
    RepeatPolicy | None, Query(description="Whether items already taken may be listed.")
]
Calibrate = Annotated[
    float, Query(ge=0, le=1, description="How far the list's mix follows the forecast.")
]
ReasonsOf = Annotated[
    Reasons,
    Query(
        description="none: no words, fastest; short: what an item has to do with history and "
        "forecast; causes: what of the past put it there, several times as long."
    ),
]


@dataclass(frozen=True)
class SessionOptions:
    """Whose session is asked for, and what differs in it."""

    user_id: str
    edits: tuple[str, ...]
    strength: float | None
    repeat: RepeatPolicy | None


def read_session_options(
    user_id: UserId,
    edits: EditTexts = [],  # noqa: B006  (FastAPI copies it)
    strength: Strength = None,
    repeat: Repeat = None,
) -> SessionOptions:
    """Read what the routes of one person's list have in common."""
    return SessionOptions(user_id, tuple(filter(str.strip, edits)), strength, repeat)


Options = Annotated[SessionOptions, Depends(read_session_options)]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


@dataclass(frozen=True)
class Api:
    """Answers of one server."""

    live: LiveEngine
    settings: ServeSettings
    workers: WorkerPool
    metrics: ServerMetrics

    async def add_events(self, sent: Events) -> EventsReport:
        """Append events; when it is answered they are on the disk, and lists follow them.

        Sending again does no harm. The cutoff moves with the newest event.
        """
        n_events, most = len(sent.events), self.settings.max_events
        if n_events > most:
            raise HTTPException(413, f"{n_events:,} events: send {most:,} at most in a request")
        check = await self.workers.run(lambda: EventCheck.of(sent.events, self.live, self.settings))
        added = await self.workers.wait_for(self.live.submit(check.usable))
        if added.conflicts:
            places = ", ".join(str(check.places[place]) for place in added.conflicts[:5])
            raise HTTPException(
                409,
                f"events {places}: their event_id is stored with another user, item or time; "
                "nothing of this request is stored",
            )
        report = check.report(added)
        self.metrics.count_events(report)
        return report

    async def forecast(self, user_id: UserId) -> Response:
        """Forecast a person's next period, in numbers and in sentences."""

        def answer() -> Response:
            session = self._open(user_id)
            engine, history = self.live.engine, session.history
            return _answer(person_summary(engine.dataset, history, session.forecast, []))

        return await self.workers.run(answer)

    async def recommend(
        self,
        options: Options,
        k: K = 10,
        calibrate: Calibrate = 0.0,
        reasons: ReasonsOf = "short",
    ) -> Recommendations:
        """Recommend items to a person, under edits if there are some."""

        def answer() -> Recommendations:
            session = self._open_with(options, words=reasons != "none")
            return Recommendations(
                user_id=session.history.user_id,
                cutoff=str(session.history.cutoff),
                edits=edit_sentences(session.edits, session.history.catalog),
                issues=[issue.text for issue in session.issues],
                strength=session.strength,
                items=_list_items(session, k, calibrate, reasons),
            )

        return await self.workers.run(answer)

    async def explain(
        self,
        options: Options,
        item: ItemId,
        k: K = 10,
    ) -> Response:
        """Explain an item: its score, the events behind it, and what would change its place."""

        def answer() -> Response:
            session = self._open_with(options)
            return _answer(session.explain(self._item(session, item), k).to_dict())

        return await self.workers.run(answer)

    async def why_not(
        self,
        options: Options,
        item: ItemId,
        k: K = 10,
    ) -> Response:
        """Say why an item is not listed, and the smallest edits that would list it."""

        def answer() -> Response:
            session = self._open_with(options)
            found = session.why_not(self._item(session, item), k)
            sentences = edit_sentences(found.edits, session.history.catalog)
            shown = {name: getattr(found, name) for name in ("title", "rank", "gap", "factor")}
            return _answer(shown | {"k": k, "edits": sentences, "text": found.text})

        return await self.workers.run(answer)

    async def read_wish(self, user_id: UserId, wish: Wish) -> WishAnswer:
        """Read a wish into edits, and show them; nothing is applied."""

        def answer() -> WishAnswer:
            history = self._open(user_id).history
            found = parse_edits(wish.text, history.catalog, history.cutoff)
            edits = [
                WishEdit(
                    category=edit.category,
                    factor=edit.factor,
                    until=None if edit.until is None else str(edit.until),
                    lock=edit.lock,
                )
                for edit in found.edits
            ]
            return WishAnswer(
                edits=edits,
                sentences=edit_sentences(found.edits, history.catalog),
                assumed=dict(found.assumed),
                not_understood=[issue.text for issue in found.issues],
            )

        return await self.workers.run(answer)

    async def forget(self, user_id: UserId) -> Deletion:
        """Delete a person's events for good; later events of the same id are of somebody new."""
        if not await self.workers.run(lambda: self.live.knows(user_id)):
            await self.workers.run(lambda: self._open(user_id))  # says what ids are near
        deleted = await self.workers.wait_for(self.live.forget(user_id))
        return Deletion(user_id=user_id, stored_events=deleted)

    async def health(self, response: Response) -> Health:
        """Say whether events can be stored; 503 if not."""
        try:
            await asyncio.wait_for(run_in_threadpool(self.live.store.ping), HEALTH_SECONDS)
        except (StoreError, TimeoutError) as error:
            LOGGER.warning("the database does not answer: %s", error)
            response.status_code = 503
            return Health(status="unavailable", database="it does not answer: see the log")
        return Health(status="ok", database="ok")

    async def show_metrics(self) -> Response:
        """Give the metrics in the format of Prometheus."""
        text = generate_latest(self.metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    def _open_with(self, options: SessionOptions, words: bool = True) -> UserSession:
        """Open a session under edits, if there are some; errors are those of `_open`."""
        session = self._open(options.user_id, options.repeat, words)
        edits, strength = options.edits, options.strength
        return session.edit(*edits, strength=strength) if edits or strength is not None else session

    def _open(
        self, user_id: str, repeat: RepeatPolicy | None = None, words: bool = True
    ) -> UserSession:
        """Open a session; HTTPException 404 if the person is unknown."""
        try:
            return self.live.session(user_id, repeat=repeat, words=words)
        except DataError as error:
            raise HTTPException(404, str(error)) from error

    def _item(self, session: UserSession, item: str) -> str:
        """Give an item's id; HTTPException 404 if it is unknown."""
        catalog = session.history.catalog
        try:
            return str(catalog.item_ids[catalog.item_index(item)])
        except DataError as error:
            raise HTTPException(404, str(error)) from error


def api_router(
    live: LiveEngine, settings: ServeSettings, workers: WorkerPool, metrics: ServerMetrics
) -> APIRouter:
    """Give the routes of a live engine."""
    api = Api(live, settings, workers, metrics)
    router = APIRouter(default_response_class=PrintableJSONResponse)
    person = "/users/{user_id:path}"
    common = (401, 422, 503, 504)
    add = router.add_api_route
    add(
        "/events",
        api.add_events,
        methods=["POST"],
        status_code=202,
        responses=_problems(409, 413, *common),
    )
    for path, answer in (
        (f"{person}/forecast", api.forecast),
        (f"{person}/recommendations", api.recommend),
        (f"{person}/explain/{{item:path}}", api.explain),
        (f"{person}/why-not/{{item:path}}", api.why_not),
    ):
        add(path, answer, methods=["GET"], responses=_problems(404, *common))
    add(f"{person}/wishes", api.read_wish, methods=["POST"], responses=_problems(404, *common))
    add(person, api.forget, methods=["DELETE"], responses=_problems(404, *common))
    add("/healthz", api.health, methods=["GET"], responses={503: {"model": Health}})
    add("/metrics", api.show_metrics, methods=["GET"], response_class=Response)
    return router


def _list_items(session: UserSession, k: int, calibrate: float, reasons: Reasons) -> list[Item]:
    if reasons == "none" and not calibrate:
        ranking, catalog = session.ranking(k), session.history.catalog
        places = np.flatnonzero(~ranking.muted)
        return [
            Item(
                item_id=str(catalog.item_ids[item]),
                title=str(catalog.titles[item]),
                rank=rank,
                score=float(score),
                why=None,
            )
            for rank, (item, score) in enumerate(
                zip(ranking.item_idx[places], ranking.scores[places], strict=True), start=1
            )
        ]
    listed = session.recommend(k, calibrate=calibrate, causes=reasons == "causes")
    return [
        Item(
            item_id=one.item_id,
            title=one.title,
            rank=one.rank,
            score=one.score,
            why=None if reasons == "none" else one.why,
        )
        for one in listed
    ]


def _answer(values: Any) -> Response:
    return PrintableJSONResponse(values, headers={"Cache-Control": "no-store"})
