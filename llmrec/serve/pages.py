"""The explorer: pages that show people, their forecasts and lists, and what edits would do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np

from llmrec.data.dataset import Dataset
from llmrec.data.ids import find_id, near_names
from llmrec.engine import InterestEngine
from llmrec.errors import DataError, EditError, MissingExtraError
from llmrec.explain.explanation import score_parts
from llmrec.person_hindsight import find_window, past_items
from llmrec.person_html import render_page
from llmrec.person_view import FACTOR_STEP, MAX_FACTOR_SHOWN, STRENGTH_STEP, PersonView
from llmrec.ranking.edits import Edit
from llmrec.serve.page_reports import (
    format_time,
    log_reports,
    people_rows,
    person_address,
    stored_rows,
    wish_preview,
)
from llmrec.serve.page_state import PageState
from llmrec.serve.static_files import STATIC_ADDRESSES, static_file
from llmrec.session import UserSession
from llmrec.types import RepeatPolicy

try:
    from fastapi import APIRouter, Form, Query, Request
    from fastapi.responses import HTMLResponse, RedirectResponse, Response
except ImportError as error:
    raise MissingExtraError("pages need FastAPI: pip install 'llmrec[serve]'") from error

if TYPE_CHECKING:
    from llmrec.serve.access import Access
    from llmrec.serve.limits import WorkerPool

PEOPLE_PER_PAGE = 50
PEOPLE_AT_START = 12
MAX_COMPARED = 4
# Nothing but this server's own files, and no script or style within a page.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "same-origin",  # without any, a form that is sent has no origin to check
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # pages are about people
}


class LivePeople(Protocol):
    """Whose people the pages show: an engine, and sessions opened safely beside its writes."""

    @property
    def engine(self) -> InterestEngine:
        """The engine as it is now."""
        ...

    def session(
        self,
        user_id: object,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> UserSession:
        """Open a session, see `InterestEngine.session`."""
        ...


@dataclass(frozen=True)
class PageSources:
    """What the pages show beside the engine.

    Attributes
    ----------
    whole
        The log beyond the engine's cutoff, for what happened after it; None: it is not shown.
    forecasts
        Folder of stored forecasts, see `llmrec.evaluation.save_forecasts`; None: there is none.
    engine_folder
        Where the engine was loaded from, for what `llmrec info` says; None: it was not.
    """

    whole: Dataset | None = None
    forecasts: Path | None = None
    engine_folder: str | None = None


@dataclass(frozen=True)
class Explorer:
    """Answers what the pages ask for.

    Attributes
    ----------
    live
        Whose people are shown.
    access
        Checks the key of the login page; None: no key is needed.
    sources
        What is shown beside the engine.
    """

    live: LivePeople
    access: Access | None
    sources: PageSources

    def start(self) -> HTMLResponse:
        """Show whom there is, and a search."""
        engine = self.live.engine
        log = engine.dataset.log
        chosen = np.unique(np.linspace(0, max(log.n_users - 1, 0), PEOPLE_AT_START).astype(int))
        people = people_rows(log, chosen[: log.n_users])
        return self._page(
            "start.html", engine=engine, people=people, day=format_time(engine.cutoff)
        )

    def people(self, q: str = "", page: Annotated[int, Query(ge=1)] = 1) -> HTMLResponse:
        """List people whose id contains a text, a page at a time."""
        log = self.live.engine.dataset.log
        ids = log.user_ids
        found = np.flatnonzero(ids.str.contains(q, case=False, regex=False)) if q else None
        places = np.arange(log.n_users) if found is None else found
        if q and (exact := find_id(ids, q)) >= 0:
            places = np.array([exact, *places[places != exact]])
        n_pages = max(1, -(-len(places) // PEOPLE_PER_PAGE))
        page = min(page, n_pages)
        shown = places[(page - 1) * PEOPLE_PER_PAGE : page * PEOPLE_PER_PAGE]
        return self._page(
            "people.html",
            q=q,
            people=people_rows(log, shown),
            n_found=len(places),
            page=page,
            n_pages=n_pages,
        )

    def person(self, request: Request, user_id: str) -> HTMLResponse:
        """Show a person, and their list under the edits of the address."""
        try:
            plain = self.live.session(user_id)
        except DataError as error:
            return self._not_found(user_id, error)
        state, problem = self._read_state(request, plain)
        known = (
            None if self.sources.whole is None else find_window(self.sources.whole, plain.history)
        )
        window = known if state.hindsight else None
        try:
            session = self._apply(plain, state)
            before = plain if state.removed else None
            view = PersonView.of(session, reasons=True, before=before, window=window)
        except (EditError, DataError) as error:
            problem = problem or str(error)
            view = PersonView.of(plain, reasons=True, window=window)
        return self._page(
            "person.html",
            headers={"HX-Replace-Url": person_address(user_id, state.query())},
            view=view,
            past=past_items(plain.history, state.removed),
            state=state,
            sliders={edit.category: edit for edit in state.edits},
            factor_step=FACTOR_STEP,
            max_factor=MAX_FACTOR_SHOWN,
            strength_step=STRENGTH_STEP,
            fitted=plain.strength,
            wish=wish_preview(state, plain.history),
            problem=problem,
            has_hindsight=known is not None,
            has_forecasts=self.sources.forecasts is not None,
        )

    def explanation(self, request: Request, user: str, item: str) -> HTMLResponse:
        """Explain one item in full, under the edits of the address."""
        try:
            plain = self.live.session(user)
        except DataError as error:
            return self._not_found(user, error)
        state, _ = self._read_state(request, plain)
        try:
            session = self._apply(plain, state)
            found = session.explain(item)
            errors = session.check(found)
        except (DataError, EditError) as error:
            return self._page("problem.html", 404, heading="No such item", message=str(error))
        parts = score_parts(found.item) if found.item else {}
        back = person_address(user, state.query())
        return self._page(
            "explanation.html", found=found, parts=parts, errors=errors, back=back, user_id=user
        )

    def stored(self, user: str) -> HTMLResponse:
        """Show a person's stored forecasts and how they did; nobody's who was deleted."""
        try:
            self.live.session(user)
        except DataError as error:
            return self._not_found(user, error)
        rows, problem = stored_rows(
            self.sources.forecasts, self.sources.whole or self.live.engine.dataset, user
        )
        return self._page(
            "stored.html", user_id=user, rows=rows, problem=problem, back=person_address(user)
        )

    def compare(self, users: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:
        """Show people side by side."""
        wanted = [one.strip() for one in users or [] if one.strip()][:MAX_COMPARED]
        sessions = []
        for user_id in dict.fromkeys(wanted):
            try:
                sessions.append(self.live.session(user_id))
            except DataError as error:
                return self._not_found(user_id, error)
        views = [PersonView.of(session, k=5) for session in sessions]
        names = list(dict.fromkeys(name for view in views for name in view.timeline.names))
        shares = [
            dict(zip(one.history.catalog.categories, one.forecast.category_weights, strict=True))
            for one in sessions
        ]
        return self._page("compare.html", views=views, names=names, shares=shares, wanted=wanted)

    def log(self) -> HTMLResponse:
        """Show what `llmrec check` and `llmrec info` say of the log and of the engine."""
        reports = log_reports(self.live.engine.dataset, self.sources.engine_folder)
        return self._page("log.html", reports=reports)

    def login_page(self, request: Request, next: str = "/") -> Response:
        """Ask for the key."""
        if "hx-request" in request.headers:  # a part of a page, after the login has ended
            return Response(status_code=200, headers={"HX-Redirect": "/login"})
        return self._page("login.html", next=next, wrong=False)

    def login(
        self, request: Request, key: Annotated[str, Form()], next: Annotated[str, Form()] = "/"
    ) -> Response:
        """Give the cookie to who has the key."""
        target = next if next.startswith("/") and not next.startswith(("//", "/\\")) else "/"
        cookie = self.access.login(key) if self.access else ""
        if cookie is None:
            return self._page("login.html", 401, next=target, wrong=True)
        answer = RedirectResponse(target, 303, headers=HEADERS)
        if self.access:
            self.access.set_cookie(answer, cookie, secure=request.url.scheme == "https")
        return answer

    def logout(self) -> Response:
        """Take the cookie back."""
        from llmrec.serve.access import COOKIE

        answer = RedirectResponse("/login", 303, headers=HEADERS)
        answer.delete_cookie(COOKIE)
        return answer

    def _read_state(self, request: Request, plain: UserSession) -> tuple[PageState, str]:
        """Give the state of an address; without what cannot be read, and why."""
        try:
            state = PageState.read(request.query_params.multi_items())
        except EditError as error:
            return PageState(), str(error)
        return state.without_usual_strength(plain.strength), ""

    def _apply(self, plain: UserSession, state: PageState) -> UserSession:
        """Give the session of a state; its forecast and scores are the plain one's, if they can."""
        history = plain.history
        edits = state.all_edits(history.catalog, history.cutoff)
        session = plain
        if state.removed:
            items = np.array([history.catalog.item_index(one) for one in state.removed])
            session = self.live.engine.session(history.without_items(items))
        return session.edit(*edits, strength=state.strength)

    def _not_found(self, user_id: str, error: DataError) -> HTMLResponse:
        near = near_names(self.live.engine.dataset.log.user_ids, user_id)
        return self._page("not_found.html", 404, user_id=user_id, message=str(error), near=near)

    def _page(
        self, template: str, status: int = 200, headers: dict[str, str] | None = None, **shown: Any
    ) -> HTMLResponse:
        dataset = self.live.engine.dataset
        about = {"dataset": dataset, "has_key": self.access is not None and self.access.is_needed}
        page = render_page(
            template, address=person_address, static=STATIC_ADDRESSES, **about, **shown
        )
        return HTMLResponse(page, status, HEADERS | (headers or {}))


def pages_router(
    live: LivePeople,
    access: Access | None = None,
    sources: PageSources | None = None,
    workers: WorkerPool | None = None,
) -> APIRouter:
    """Give the routes of the explorer; the arguments are the fields of `Explorer`.

    ``workers`` make the pages that take time; None: whatever threads FastAPI has.
    """
    explorer = Explorer(live, access, sources or PageSources())
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    for path, answer in (
        ("/", explorer.start),
        ("/people", explorer.people),
        ("/people/{user_id:path}", explorer.person),
        ("/explanation", explorer.explanation),
        ("/stored", explorer.stored),
        ("/compare", explorer.compare),
        ("/log", explorer.log),
    ):
        made = answer if workers is None else _in_workers(answer, workers)
        router.add_api_route(path, made, methods=["GET"], response_model=None)
    router.add_api_route("/login", explorer.login_page, methods=["GET"], response_model=None)
    router.add_api_route("/static/{name}", static_file, methods=["GET"], response_model=None)
    router.add_api_route("/login", explorer.login, methods=["POST"], response_model=None)
    router.add_api_route("/logout", explorer.logout, methods=["POST"], response_model=None)
    return router


def _in_workers(
    answer: Callable[..., Response], workers: WorkerPool
) -> Callable[..., Awaitable[Response]]:
    """Give a route that is answered as the routes of the interface are: 503 if too much waits."""

    @wraps(answer)
    async def run(**given: Any) -> Response:
        return await workers.run(partial(answer, **given))

    return run
