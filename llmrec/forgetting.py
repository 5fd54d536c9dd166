"""A person forgotten wherever they are: engines, stored forecasts, examples, servers, the log.

The log is written last. It tells who is meant and which engine had them, so that a run that was
interrupted goes on when it is started again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.forget_certificate import ChangedPart, ForgetCertificate, Trained, UnchangedPart
from llmrec.data.ids import find_id, format_id, lookup_id
from llmrec.data.keyed_ids import IdKey, key_of, known_keys
from llmrec.data.options import ReadingOptions
from llmrec.data.row_removal import RemovedRows, find_event_files, write_without_person
from llmrec.engine_removal import kept_after_forgetting, without_person
from llmrec.errors import DataError
from llmrec.evaluation.forecast_removal import count_forecasts, remove_forecasts

PRIORS = "priors of the other people's examples"


@dataclass(frozen=True)
class ForgetPlaces:
    """Where a person may be.

    Attributes
    ----------
    data, reading
        The log, and how it is read.
    engines, stored, examples, prompts
        Folders of engines, of stored forecasts, of training examples, and of prompts that a
        language model goes on reading from (`PrefixCache`).
    database
        Of the events of a server that does not run now; None: none.
    trained
        What becomes of the trained parts of engines, see `InterestEngine.forget`.
    use_llm
        Whether engines keep their language models.
    """

    data: str
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    engines: tuple[Path, ...] = ()
    stored: tuple[Path, ...] = ()
    examples: tuple[Path, ...] = ()
    prompts: tuple[Path, ...] = ()
    database: str | None = None
    trained: Trained = "keep"
    use_llm: bool = True


@dataclass(frozen=True, eq=False)
class _Log:
    """A log with a person and without; ``draft`` has the files of ``removed`` without them.

    ``states`` are sizes and times of the files when they were read.
    """

    whole: Dataset
    rest: Dataset
    removed: Sequence[RemovedRows]
    draft: Path | None
    states: Mapping[Path, tuple[int, int]] = field(default_factory=dict)

    def replace_files(self) -> None:
        """Put the files without the person in the place of those with."""
        source = self.whole.source
        for one in self.removed:
            assert source is not None
            assert self.draft is not None
            new = self.draft / one.path.relative_to(source) if source.is_dir() else self.draft
            target = one.path.resolve()  # what a link points to, not the link
            atomic_write_bytes(target, new.read_bytes())

    def require_unchanged(self) -> None:
        """Raise DataError if a file of the log has changed since it was read."""
        for one in self.removed:
            if self.states[one.path] != _state_of(one.path):
                raise DataError(
                    f"{one.path} changed while it was read: nothing more is forgotten. Stop what "
                    "writes to it, and run the same command again."
                )


@dataclass(frozen=True, eq=False)
class _Place:
    """A place that was looked at.

    Attributes
    ----------
    name
        What it is, and where.
    changed, unchanged
        What `remove` removes there, if anything, and what then stays.
    """

    name: str
    changed: tuple[ChangedPart, ...] = ()
    unchanged: tuple[UnchangedPart, ...] = ()
    remove: Callable[[], object] = lambda: None


def forget_everywhere(user_id: object, places: ForgetPlaces) -> ForgetCertificate:
    """Forget a person in all places; what refuses does so before anything is changed.

    Raises
    ------
    DataError
        If nobody of this id is anywhere, nor was forgotten before; near ids are named. If a place
        cannot be read, or cannot be written without the person; the message has the way out.
    StoreError
        If the database does not answer.
    """
    text = format_id(user_id)
    with _open_log(text, places) as log:
        key = key_of(log.whole)  # which may have to be made
        ids = {text, *(key.hash(text) for key in known_keys(log.whole))}
        is_in_log = bool(log.removed) or find_id(log.whole.log.user_ids, text) >= 0
        found = [
            *(_look_at_forecasts(folder, ids, log.whole) for folder in places.stored),
            *(_look_at_examples(folder, ids, log) for folder in places.examples),
            *(_look_at_prompts(folder, text) for folder in places.prompts),
        ]
        if places.database is not None:
            is_known = is_in_log or any(one.changed for one in found)
            found.append(_look_at_store(places.database, text, is_known))
        was_forgotten = _was_forgotten(ids, log.whole)
        if not (is_in_log or was_forgotten or any(one.changed for one in found)):
            lookup_id(log.whole.log.user_ids, text, "user")  # says whom may be meant
        found = [
            *(_look_at_engine(folder, text, log, places) for folder in places.engines),
            *(_look_at_work(folder) for folder in places.engines if is_in_log or was_forgotten),
            *found,
            _look_at_log(log, text),
        ]
        if any(one.changed for one in found) and not was_forgotten:
            _remember(key, text)  # before the log: whoever is in neither is unknown
        for place in found:  # the log comes last
            log.require_unchanged()
            place.remove()
    return ForgetCertificate(
        key.hash(text),
        _now(),
        tuple(part for one in found for part in one.changed),
        tuple(one.name for one in found if not one.changed and not one.unchanged),
        tuple(part for one in found for part in one.unchanged),
    )


@contextmanager
def _open_log(user_id: str, places: ForgetPlaces) -> Iterator[_Log]:
    """Read a log, and a draft of it without a person, which goes away in the end."""
    whole = places.reading.load(places.data)
    source = whole.source
    if source is None:
        if places.engines and find_id(whole.log.user_ids, user_id) >= 0:
            raise DataError(
                f"{whole.name} is part of an installed package and stays as it is, so that an "
                "engine of it would have everybody again: copy the log to a folder of your own."
            )
        yield _Log(whole, whole, (), None)
        return
    inside = source.rglob("*") if source.is_dir() else [source]
    states = {path: _state_of(path) for path in inside if path.is_file()}
    draft = source.with_name(f".{source.name}.forgetting") / source.name
    try:
        try:
            files = find_event_files(source, places.reading.columns or {})
        except DataError:
            if find_id(whole.log.user_ids, user_id) >= 0:
                raise
            files = []  # of a layout that is not written, and the person is not in it
        removed = write_without_person(source, draft, files, user_id)
        rest = _load_rest(draft, places.reading, source) if removed else whole
        yield _Log(whole, rest, removed, draft, states)
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)


def _state_of(path: Path) -> tuple[int, int]:
    """Give a file's size and the time of its last change, in nanoseconds."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _load_rest(draft: Path, reading: ReadingOptions, source: Path) -> Dataset:
    try:
        return replace(reading.load(str(draft)), source=source)
    except DataError as error:
        raise DataError(f"nothing is forgotten: without this person, {error}") from error


def _look_at_log(log: _Log, user_id: str) -> _Place:
    name = f"log ({log.whole.source or log.whole.name})"
    if log.draft is None and find_id(log.whole.log.user_ids, user_id) >= 0:
        stays = UnchangedPart("log", log.whole.name, "", "it is part of an installed package")
        return _Place(name, (), (stays,))
    parts = (
        ChangedPart("log", str(one.path), "rows", one.n_before, one.n_after) for one in log.removed
    )
    return _Place(name, tuple(parts), (), log.replace_files)


def _look_at_engine(folder: Path, user_id: str, log: _Log, places: ForgetPlaces) -> _Place:
    rest = log.whole, log.rest, places.trained, places.use_llm
    found = without_person(folder, user_id, *rest)
    name = f"engine ({folder})"
    if found is None:
        return _Place(name, (), kept_after_forgetting(folder))
    return _Place(name, found.changed, found.unchanged, found.save)


def _look_at_work(folder: Path) -> _Place:
    """Look at what a fit has stored beside an engine's folder: of another log, it is of no use."""
    folder = Path(os.path.realpath(folder))
    # What a fit stores, and what a program left that was killed while it saved the engine.
    work, *left = (
        folder.with_name(f".{folder.name}.{end}") for end in ("fit", "partial", "before")
    )
    held = [path for path in work.rglob("*") if path.is_file()]
    held += [path for one in left for path in one.rglob("*") if path.is_file()]
    name = f"what a fit has stored ({work})"
    if not held:
        return _Place(name)
    part = ChangedPart("what a fit has stored", str(work), "files", len(held), 0)

    def remove() -> None:
        for one in (work, *left):
            shutil.rmtree(one, ignore_errors=True)

    return _Place(name, (part,), (), remove)


def _look_at_forecasts(folder: Path, ids: set[str], whole: Dataset) -> _Place:
    n, n_own = count_forecasts(folder, ids, whole)
    part = ChangedPart("stored forecasts", str(folder), "forecasts", n, n - n_own)
    changed = (part,) if n_own else ()
    return _Place(
        f"stored forecasts ({folder})", changed, (), lambda: remove_forecasts(folder, ids, whole)
    )


def _look_at_examples(folder: Path, ids: set[str], log: _Log) -> _Place:
    from llmrec.training.example_removal import count_timelines, examples_without

    n, n_own = count_timelines(folder, ids)
    name = f"training examples ({folder})"
    if not n_own:
        return _Place(name)
    part = ChangedPart("training examples", str(folder), "timelines", n, n - n_own)
    way_out = "counts of everybody are in them; finetune/make_dataset.py makes them again"
    priors = UnchangedPart(PRIORS, str(folder), "", way_out)
    rest = examples_without(folder, ids, log.whole, log.rest)
    return _Place(name, (part,), (priors,), rest.save)


def _look_at_prompts(folder: Path, user_id: str) -> _Place:
    from llmrec.language.prefixes import prefix_file

    path, name = prefix_file(folder, user_id), f"prompts that were read ({folder})"
    if not path.is_file():
        return _Place(name)
    return _Place(
        name, (ChangedPart("prompts that were read", str(path), "files", 1, 0),), (), path.unlink
    )


def _look_at_store(database: str, user_id: str, is_known: bool) -> _Place:
    """Look at the events of a server; of somebody known it takes none of before from now on."""
    from llmrec.serve.store import EventStore

    if "://" not in database and not Path(database).is_file():
        raise DataError(f"{database} is not there: give the database of `llmrec serve`.")
    store = EventStore(database)
    n, n_own = store.count(), store.count(user_id)
    part = ChangedPart("events of the server", store.name, "events", n, n - n_own)
    is_to_do = n_own or (is_known and not store.forgotten([user_id]))

    def remove() -> None:
        if is_to_do:
            store.forget(user_id)
        store.close()

    return _Place(f"events of the server ({store.name})", (part,) if n_own else (), (), remove)


def _notes(key: IdKey) -> Path:
    """Give the file beside a key that says who was forgotten, by keyed hashes."""
    return key.path.with_name(f"{key.path.name}.forgotten")


def _was_forgotten(ids: set[str], whole: Dataset) -> bool:
    paths = [_notes(key) for key in known_keys(whole)]
    lines = [line for path in paths if path.is_file() for line in path.read_text().splitlines()]
    return any(json.loads(line)["person"] in ids for line in lines)


def _remember(key: IdKey, user_id: str) -> None:
    """Note that a person was forgotten, so that asking for it again is no error."""
    path = _notes(key)
    before = path.read_text() if path.is_file() else ""
    line = json.dumps({"person": key.hash(user_id), "time": _now()})
    atomic_write_text(path, f"{before}{line}\n")


def _now() -> str:
    return str(np.datetime64("now", "ms"))
