"""What clients send and get, with examples: the models of the OpenAPI description."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

from llmrec.serve.store import StoredEvent

MAX_ID_LENGTH, MAX_TITLE_LENGTH, MAX_CATEGORIES = 256, 1_000, 50
Reasons = Literal["none", "short", "causes"]


def _refuse_unprintable(text: str) -> str:
    """Give a text back; ValueError if it has characters that no id has, such as line breaks."""
    if not text.strip() or not text.isprintable():
        raise ValueError("it is empty or has characters that do not print")
    return text


Id = Annotated[str, Field(max_length=MAX_ID_LENGTH), AfterValidator(_refuse_unprintable)]
Title = Annotated[str, Field(max_length=MAX_TITLE_LENGTH), AfterValidator(_refuse_unprintable)]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class Event(BaseModel):
    """Somebody took an item at a time.

    A new item joins the catalog by its ``categories`` (and ``title``), where these are known.
    """

    model_config = _example(
        user_id="1823", item_id="819312", time="2026-03-01T18:30:00Z", event_id="order-77-1"
    )
    user_id: Id
    item_id: Id
    time: datetime = Field(description="ISO 8601, or seconds since 1970; without a zone it is UTC.")
    event_id: Id | None = Field(
        None, description="Makes sending again safe; without one user, item and time do."
    )
    title: Title | None = None
    categories: Annotated[list[Title], Field(min_length=1, max_length=MAX_CATEGORIES)] | None = None

    def stored(self) -> StoredEvent:
        """Give it as it is stored."""
        time = self.time if self.time.tzinfo else self.time.replace(tzinfo=UTC)
        milliseconds = round(time.timestamp() * 1000)
        categories = None if self.categories is None else tuple(self.categories)
        ids = self.user_id, self.item_id
        return StoredEvent(*ids, milliseconds, self.event_id, self.title, categories)


class Events(BaseModel):
    """Events to append."""

    model_config = ConfigDict(extra="forbid")
    events: Annotated[list[Event], FailFast()]  # an error of each of a million would fill memory


class Remark(BaseModel):
    """What is said of one event, by its place in the request."""

    index: int
    reason: str


class EventsReport(BaseModel):
    """What became of events: the accepted ones are on the disk, and lists follow them."""

    model_config = _example(
        accepted=1,
        duplicates=1,
        rejected=[{"index": 2, "reason": "item '81931' is unknown; near: '819312'"}],
        notes=[],
    )
    accepted: int
    duplicates: int = Field(description="Stored before; sending again does no harm.")
    rejected: list[Remark]
    notes: list[Remark] = Field(description="Of accepted events that are out of the ordinary.")


class Item(BaseModel):
    """One item of a list."""

    item_id: str
    title: str
    rank: int
    score: float
    why: str | None = Field(description="One to three sentences; null with reasons=none.")


class Recommendations(BaseModel):
    """A list, and what it follows."""

    model_config = _example(
        user_id="1823",
        cutoff="2026-03-01T18:30:00.001",
        edits=["No Horror."],
        issues=[],
        strength=1.0,
        items=[
            {
                "item_id": "819312",
                "title": "Whole milk",
                "rank": 1,
                "score": 3.2,
                "why": "Taken 4 times, last on 2026-02-26.",
            }
        ],
    )
    user_id: str
    cutoff: str = Field(description="Start of the period that is forecast: after the last event.")
    edits: list[str] = Field(description="As understood, a sentence each.")
    issues: list[str] = Field(description="What of the edits was not understood.")
    strength: float
    items: list[Item]


class Wish(BaseModel):
    """What somebody wants to differ, in words."""

    model_config = _example(text="more thrillers, no horror until March")
    text: Annotated[str, Field(min_length=1, max_length=4_000)]


class WishEdit(BaseModel):
    """More, less or nothing of a category."""

    category: str
    factor: float = Field(description="Multiplies its share; 0: nothing of it.")
    until: str | None
    lock: bool


class WishAnswer(BaseModel):
    """What was understood. Nothing is applied: send ``sentences`` as ``edits`` of a list."""

    model_config = _example(
        edits=[{"category": "Thriller", "factor": 2.0, "until": None, "lock": False}],
        sentences=["Twice as much Thriller."],
        assumed={"thrillers": "Thriller"},
        not_understood=[],
    )
    edits: list[WishEdit]
    sentences: list[str]
    assumed: dict[str, str] = Field(description="Words, and the category they were taken for.")
    not_understood: list[str]


class Deletion(BaseModel):
    """What was deleted."""

    user_id: str
    stored_events: int = Field(description="Events that this server had stored of the person.")


class Health(BaseModel):
    """Whether events can be stored."""

    status: Literal["ok", "unavailable"]
    database: str = Field(description="ok, or what is wrong.")


class Problem(BaseModel):
    """What is wrong with a request, in a line."""

    detail: str
