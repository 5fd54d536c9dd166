"""Checks of examples before they are trained on: values, their log, and what targets depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.data.periods import Window
from llmrec.data.splits import split_timelines
from llmrec.data.windows import holdout_cutoff
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.training.dataset import DatasetManifest
from llmrec.training.example_columns import make_targets, make_texts, population_shifts
from llmrec.training.window_checks import check_people
from llmrec.types import FloatArray

if TYPE_CHECKING:
    import datasets

    from llmrec.data.dataset import Dataset


AGAIN = "make the examples again with finetune/make_dataset.py"
N_TEXTS = 24  # timelines of each part whose texts are rendered again
TOLERANCE = 1e-4  # of shares and of log priors, which are stored as float32
MIN_PAIRS = 20  # of people, to compare targets with others' histories
# Standard errors: a one-sided test of 1 in 10,000.
Z_LIMIT = 3.72
Columns = Mapping[str, Sequence[Any]]


def check_tables(manifest: DatasetManifest, parts: Mapping[str, datasets.Dataset]) -> None:
    """Check the values of examples, and that their targets depend on their histories.

    Raises
    ------
    DataError
        Naming part, row and column.
    """
    for name, table in parts.items():
        columns: Columns = table.with_format("numpy")[:]
        for row, user in enumerate(columns["user"]):
            if fault := _find_fault(manifest, columns, row):
                raise DataError(
                    f"row {row} of the examples' part {name!r} (user {str(user)!r}): {fault}; "
                    f"{AGAIN}"
                )
        check_association(name, columns)


def _find_fault(manifest: DatasetManifest, columns: Columns, row: int) -> str:
    """Say what is wrong with the values of a row; "" if nothing is."""
    back = np.asarray(columns["back"][row], dtype=np.int64)
    if not len(back):
        return "there are no read positions"
    if (np.diff(back) > 0).any() or back.min() < 0:
        return f"back is {back.tolist()[:8]}, which does not count down to 0"
    shape = (len(back), len(manifest.labels))
    shares, log_prior = (np.stack(list(columns[name][row])) for name in ("shares", "log_prior"))
    for name, values in (("shares", shares), ("log_prior", log_prior)):
        if values.shape != shape:
            return f"the shape of {name} is {values.shape}, not {shape}"
        if not np.isfinite(values).all():
            return f"{name} holds a value that is not finite"
    if (shares < 0).any() or abs(shares.sum(axis=1) - 1).max() > TOLERANCE:
        return (
            f"shares are no shares of a whole: the least is {shares.min():g}, and their sums go "
            f"from {shares.sum(axis=1).min():g} to {shares.sum(axis=1).max():g}"
        )
    if abs(np.exp(log_prior).sum(axis=1) - 1).max() > TOLERANCE:
        return f"log_prior is of weights that sum to {np.exp(log_prior).sum(axis=1).max():g}"
    titles = [int(title) for taken in columns["taken"][row] for title in taken]
    if len(columns["taken"][row]) != len(back):
        return f"taken has {len(columns['taken'][row])} lists for {len(back)} read positions"
    if titles and not 0 <= min(titles) <= max(titles) < len(manifest.titles):
        found = f"{min(titles)} to {max(titles)}"
        return f"taken holds titles {found}, and the manifest has {len(manifest.titles)}"
    texts = ("prompt", "request", "line")
    return next((f"{name} is empty" for name in texts if not str(columns[name][row]).strip()), "")


def check_association(name: str, columns: Columns) -> None:
    """Refuse targets that say nothing about the histories they are with, such as shuffled ones.

    People are compared in pairs: with shares s of the targets and q expected by counting,
    gain = (s1 - s2) . (log q1 - log q2) is 0 in the mean if targets and histories have nothing to
    do with each other, and (q1 - q2) . (log q1 - log q2) if counting is calibrated. Examples are
    refused if the gain is significantly (one-sided, 1 in 10,000) below half of that. So shuffled
    targets are found as soon as there are enough people, and targets that counting forecasts
    as well as it claims, or better, are refused less often than once in 10,000 times. On fewer
    than `MIN_PAIRS` pairs nothing is said.

    Raises
    ------
    DataError
        With gain and expectation.
    """
    people: dict[str, list[int]] = {}
    for row, user in enumerate(columns["user"]):
        people.setdefault(str(user), []).append(row)
    differences = np.array(
        [
            _compare_pair(columns, first[0], second[0])
            for first, second in zip(*_pairs(list(people.values())), strict=True)
        ]
    ).reshape(-1, 2)
    if len(differences) < MIN_PAIRS:
        return
    excess = differences[:, 0] - differences[:, 1] / 2
    error = excess.std(ddof=1) / len(excess) ** 0.5
    if excess.mean() + Z_LIMIT * error < 0:
        gain, expected = differences.mean(axis=0)
        raise DataError(
            f"the targets of the examples' part {name!r} say nothing about their histories: they "
            f"are {gain:.4f} nats likelier by their own person's counting than by another's, and "
            f"{expected:.4f} are expected ({len(excess)} pairs). shares or log_prior were shuffled "
            f"among people, or moved: {AGAIN}"
        )


def _pairs(people: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Split people into two halves at random."""
    order = np.random.default_rng(0).permutation(len(people))
    half = len(people) // 2
    return [people[i] for i in order[:half]], [people[i] for i in order[half : 2 * half]]


def _compare_pair(columns: Columns, first: int, second: int) -> tuple[float, float]:
    """Give gain and expected gain of two people's rows, see `check_association`."""
    rows = [
        (np.stack(list(columns["shares"][row])), np.stack(list(columns["log_prior"][row])))
        for row in (first, second)
    ]
    n = min(len(shares) for shares, _ in rows)
    (s1, log_q1), (s2, log_q2) = [(s[-n:], log_q[-n:]) for s, log_q in rows]
    ratio = np.asarray(log_q1 - log_q2, dtype=np.float64)
    gains = ((s1 - s2) * ratio).sum(axis=1)
    expected = ((np.exp(log_q1) - np.exp(log_q2)) * ratio).sum(axis=1)
    return float(gains.mean()), float(expected.mean())


def check_examples(
    manifest: DatasetManifest,
    parts: Mapping[str, datasets.Dataset],
    dataset: Dataset,
    codec: Codec,
) -> None:
    """Check examples against the log: every target is made again, and some of the texts.

    Where people were removed since, priors still hold their counts, and the holdout may begin
    elsewhere: only the values are checked then.

    Parameters
    ----------
    dataset
        What they were made of, see `DatasetManifest.check`.
    codec
        Of the model that is trained on them.

    Raises
    ------
    DataError
        If they hold anything from after the holdout's cutoff, differ from the examples that the
        log gives today, or one person has two names (see `check_people`).
    """
    if manifest.categories != dataset.catalog.categories:
        raise DataError(f"the examples have the categories in another order than the log: {AGAIN}")
    check_people(dataset.log)
    check_tables(manifest, parts)
    if not manifest.n_forgotten:
        _compare_with_log(manifest, parts, dataset, codec)


def _compare_with_log(
    manifest: DatasetManifest,
    parts: Mapping[str, datasets.Dataset],
    dataset: Dataset,
    codec: Codec,
) -> None:
    """Raise DataError unless the windows of the log give these examples."""
    cutoff = holdout_cutoff(dataset.log, dataset.period)
    if np.datetime64(manifest.cutoff) > cutoff:
        raise DataError(
            f"the examples hold targets that end at {manifest.cutoff}, and the holdout begins at "
            f"{cutoff}: {AGAIN}"
        )
    people, validation = split_timelines(dataset, include_validation=manifest.validated)
    train = parts["train"].with_format("numpy")[:]
    chunks = _match_timelines(train, people)
    prior = DecayedDirichlet(**manifest.counting)
    shifts = population_shifts([window for chunk in chunks for window in chunk], prior)
    _compare("train", train, chunks, manifest, codec, prior, shifts)
    table = parts["validation"].with_format("numpy")[:]
    if len(table["user"]) != len(validation):
        raise DataError(
            f"the examples have {len(table['user'])} validation windows, and the log "
            f"{len(validation)}: {AGAIN}"
        )
    _compare("validation", table, [[one] for one in validation], manifest, codec, prior, {})


def _match_timelines(columns: Columns, people: Sequence[Sequence[Window]]) -> list[list[Window]]:
    """Give the windows of each row; rows stand in the order of people, each one's newest first."""
    chunks: list[list[Window]] = []
    person, left, user = -1, 0, ""
    for row, back in enumerate(columns["back"]):
        if str(columns["user"][row]) != user:
            _require_none(left, user)
            person, user = person + 1, str(columns["user"][row])
            left = len(people[person]) if person < len(people) else 0
        if len(back) > left:
            raise DataError(
                f"row {row} of the examples' part 'train' (user {user!r}) has {len(back)} windows, "
                f"and the log has {left} more that may be trained on: they are from after the "
                f"cutoff, there twice, or of a person that the log does not have; {AGAIN}"
            )
        chunks.append(list(people[person][left - len(back) : left]))
        left -= len(back)
    _require_none(left, user)
    return chunks


def _require_none(left: int, user: str) -> None:
    if left:
        raise DataError(f"the examples lack {left} windows of user {user!r}: {AGAIN}")


def _compare(
    name: str,
    columns: Columns,
    chunks: Sequence[Sequence[Window]],
    manifest: DatasetManifest,
    codec: Codec,
    prior: DecayedDirichlet,
    shifts: Mapping[np.datetime64, FloatArray],
) -> None:
    """Raise DataError for the first row that differs from what its windows give."""
    numbers = {title: number for number, title in enumerate(manifest.titles)}
    shown = set(np.linspace(0, len(chunks) - 1, N_TEXTS, dtype=int).tolist())
    for row, chunk in enumerate(chunks):
        made: dict[str, Any] = make_targets(chunk, codec, prior, numbers, shifts)
        if row in shown:
            made |= make_texts(chunk, codec, prior, manifest.seed)
        for column, values in made.items():
            if not _is_same(columns[column][row], values):
                raise DataError(
                    f"row {row} of the examples' part {name!r} (user {columns['user'][row]!s}): "
                    f"{column} is not what the log gives for "
                    f"{chunk[-1].history.user_id!r} before {chunk[-1].history.cutoff}: "
                    f"{_shorten(columns[column][row])} instead of {_shorten(values)}. The log is "
                    "cut, counted or rendered in another way than when they were made, or they "
                    f"changed since: {AGAIN}"
                )


def _is_same(stored: Any, made: Any) -> bool:
    if isinstance(made, str):
        return str(stored) == made
    if isinstance(made, np.ndarray):
        return bool(np.allclose(np.stack(list(stored)), made, rtol=0, atol=TOLERANCE))
    lists = [list(one) if np.ndim(one) else int(one) for one in stored]
    return lists == [list(one) if np.ndim(one) else int(one) for one in made]


def _shorten(values: Any) -> str:
    text = " ".join(str(values).split())
    return text if len(text) <= 60 else f"{text[:25]} ... {text[-25:]}"
