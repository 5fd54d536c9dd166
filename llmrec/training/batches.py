"""Examples in batches of similar length, the same ones for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmrec.errors import TrainingError
from llmrec.language.tokenization import Position
from llmrec.training.objective import ReadPositions
from llmrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    import datasets

    from llmrec.language.model import LanguageModel


Tokens = tuple[int, ...]
POSITIONS_PER_EPOCH = (
    4  # of a timeline that an encoder-decoder learns from in an epoch: each is a sequence there
)
SORT_BUCKET = 16  # batches that are sorted by length together


class TimelineBatches:
    """Timelines (see `save_examples`) as batches for `TimelineModel`.

    Parameters
    ----------
    table
        One part of what `load_examples` gives.
    batch_positions
        Positions in a batch, padding included.
    line_share
        Share of the sequences whose forecast line is learned too.
    labels, renamed
        Share of the sequences in whose ticks these labels are called by made-up names, the same one
        all along: what is read then hangs less on how categories are called.

    Raises
    ------
    TrainingError
        If a timeline has no slot, a slot no target, or a line no text.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        model: LanguageModel,
        *,
        batch_positions: int,
        line_share: float = 0.0,
        labels: Sequence[str] = (),
        renamed: float = 0.0,
        seed: int = 0,
    ) -> None:
        columns = table.with_format("numpy")[:]
        self.back: list[IntArray] = [np.asarray(back, dtype=np.int64) for back in columns["back"]]
        self.log_prior: list[FloatArray] = [np.stack(list(rows)) for rows in columns["log_prior"]]
        self.shares: list[FloatArray] = [np.stack(list(rows)) for rows in columns["shares"]]
        self.taken = [_padded(rows) for rows in columns["taken"]]
        for user, shares, line in zip(columns["user"], self.shares, columns["line"], strict=True):
            if not shares.sum(axis=-1).all() or not str(line).strip():
                raise TrainingError(f"a row has no label: that of user {str(user)!r}")
        self.prompts = model.positions([str(text) for text in columns["prompt"]])
        self.requests = model.positions([str(text) for text in columns["request"]])
        self.lines = model.encode([f" {line}" for line in columns["line"]])
        self.labels = {tuple(tokens) for tokens in model.encode([f" {label}" for label in labels])}
        self.label_sizes = sorted({len(label) for label in self.labels}, reverse=True)
        self.renamed = renamed
        end = model.positions([""])[0] if model.is_encoder_decoder else []
        self.ends = len(end)
        tokens = {token for row in self.prompts for bag in row for part in bag for token in part}
        self.syllables = sorted(tokens - {token for bag in end for part in bag for token in part})
        self.one_slot = model.is_encoder_decoder
        self.batch_positions, self.line_share, self.seed = batch_positions, line_share, seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        rng = np.random.default_rng((self.seed, n))
        chosen = [(row, slots) for row in range(len(self.back)) for slots in self._slots(row, rng)]
        order = rng.permutation(len(chosen))
        batches = list(self._batched([chosen[i] for i in order]))
        writes = rng.random(len(chosen)) < self.line_share
        found: list[Callable[[], dict[str, Any]]] = []
        start = 0
        for at in rng.permutation(len(batches)):
            part = batches[at]
            flags = writes[start : start + len(part)]
            start += len(part)
            found.append(partial(self._batch, part, flags, (self.seed, n, int(at))))
        return found

    def validation_batches(self) -> Iterator[tuple[IntArray, list[list[Position]], ReadPositions]]:
        """Give all sequences with their newest slot, each once: rows, prompts and slots."""
        lengths = np.array([len(prompt) for prompt in self.prompts])
        order = np.argsort(-lengths, kind="stable")
        while len(order):
            n = max(1, self.batch_positions // int(lengths[order[0]]))
            rows, order = order[:n], order[n:]
            slots = ReadPositions(
                torch.arange(len(rows)),
                torch.zeros(len(rows), dtype=torch.long),
                _stacked([self.log_prior[row][-1:] for row in rows]),
                _stacked([self.shares[row][-1:] for row in rows]),
                _numbers([self.taken[row][-1:] for row in rows]),
            )
            yield rows, [self.prompts[row] for row in rows], slots

    def _slots(self, row: int, rng: np.random.Generator) -> Iterator[IntArray]:
        """Group the slots that are one sequence: all of a timeline, or one each."""
        n = len(self.back[row])
        if not self.one_slot:
            yield np.arange(n)
            return
        for slot in rng.permutation(n)[:POSITIONS_PER_EPOCH]:
            yield np.array([slot])

    def _sequence(self, row: int, slots: IntArray) -> list[Position]:
        """Positions up to the last of the slots; the tokenizer's end token stays the last."""
        positions, stop = self.prompts[row], len(self.prompts[row]) - self.ends
        return [*positions[: self._length((row, slots)) - self.ends], *positions[stop:]]

    def _called_otherwise(
        self, positions: Sequence[Position], rng: np.random.Generator
    ) -> list[Position]:
        """Give each label in bags a name of one to three tokens.

        The first bag may tell the mix of all that came before, in one text with labels inside.
        """
        names: dict[Tokens, Tokens] = {}

        def name(label: Tokens) -> Tokens:
            if label not in names:
                names[label] = tuple(rng.choice(self.syllables, rng.integers(1, 4)).tolist())
            return names[label]

        found, bags = list(positions), [i for i, bag in enumerate(positions) if len(bag) > 1]
        for i in bags[1:]:
            found[i] = tuple(name(part) if part in self.labels else part for part in found[i])
        for i in bags[:1]:
            found[i] = tuple(self._named(part, name) for part in found[i])
        return found

    def _named(self, text: Tokens, name: Callable[[Tokens], Tokens]) -> Tokens:
        """Give the labels inside a text, the longest first, other names."""
        found: list[int] = []
        while text:
            sizes = (n for n in self.label_sizes if text[:n] in self.labels)
            size = next(sizes, 0)
            found += name(text[:size]) if size else text[:1]
            text = text[size or 1 :]
        return tuple(found)

    def _length(self, one: tuple[int, IntArray]) -> int:
        row, slots = one
        return len(self.prompts[row]) - int(self.back[row][slots].min())

    def _batched(
        self, chosen: Sequence[tuple[int, IntArray]]
    ) -> Iterator[list[tuple[int, IntArray]]]:
        mean = np.mean([self._length(one) for one in chosen])
        size = max(1, int(SORT_BUCKET * self.batch_positions / mean))
        for start in range(0, len(chosen), size):
            part = sorted(chosen[start : start + size], key=self._length)
            while part:
                n = max(1, self.batch_positions // self._length(part[-1]))
                yield part[-n:]
                del part[-n:]

    def _batch(
        self, part: Sequence[tuple[int, IntArray]], flags: Any, entropy: tuple[int, ...]
    ) -> dict[str, Any]:
        rng = np.random.default_rng(entropy)
        sequences = [
            self._called_otherwise(sequence, rng) if rng.random() < self.renamed else sequence
            for sequence in (self._sequence(*one) for one in part)
        ]
        rows = np.repeat(np.arange(len(part)), [len(slots) for _, slots in part])
        backs = [self.back[row][slots] - self.back[row][slots].min() for row, slots in part]
        slots = ReadPositions(
            torch.from_numpy(rows),
            torch.from_numpy(np.concatenate(backs)),
            _stacked([self.log_prior[row][slots] for row, slots in part]),
            _stacked([self.shares[row][slots] for row, slots in part]),
            _numbers([self.taken[row][slots] for row, slots in part]),
        )
        # A line belongs to the newest slot of its timeline.
        written = [row for (row, _), flag in zip(part, flags, strict=True) if flag]
        return {
            "prompts": sequences,
            "slots": slots,
            "requests": [self.requests[row] for row in written],
            "lines": [self.lines[row] for row in written],
            "n_positions": sum(map(len, sequences)),
        }


def _stacked(rows: Sequence[FloatArray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def _padded(rows: Sequence[Sequence[int]]) -> IntArray:
    """(n_slots, most) numbers of the titles taken after each slot, -1 where there are no more."""
    most = max(map(len, rows))
    return np.array([[*row, *[-1] * (most - len(row))] for row in rows], dtype=np.int64)


def _numbers(parts: Sequence[IntArray]) -> torch.Tensor:
    most = max(part.shape[1] for part in parts)
    widened = [
        np.pad(part, ((0, 0), (0, most - part.shape[1])), constant_values=-1) for part in parts
    ]
    return torch.from_numpy(np.concatenate(widened))


class LineDataset:
    """The lines of all examples in batches of similar length, see `EpochBatches`."""

    def __init__(self, examples: TimelineBatches, most: int | None = None) -> None:
        self.requests, self.lines = examples.requests[:most], examples.lines[:most]
        self.batch_positions, self.seed = examples.batch_positions, examples.seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        rng = np.random.default_rng((self.seed, n))
        jitter = rng.random(len(self.lines))  # lines of one length meet others each time
        order = sorted(range(len(self.lines)), key=lambda row: (self._length(row), jitter[row]))
        batches = list(self._batched(order))
        return [partial(self._batch, batches[at]) for at in rng.permutation(len(batches))]

    def _length(self, row: int) -> int:
        return len(self.requests[row]) + len(self.lines[row])

    def _batched(self, order: list[int]) -> Iterator[list[int]]:
        while order:
            n = max(1, self.batch_positions // self._length(order[-1]))
            yield order[-n:]
            del order[-n:]

    def _batch(self, rows: Sequence[int]) -> dict[str, Any]:
        return {
            "requests": [self.requests[row] for row in rows],
            "lines": [self.lines[row] for row in rows],
            "n_positions": sum(map(self._length, rows)),
        }
