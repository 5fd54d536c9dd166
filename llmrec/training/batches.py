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
Sample = tuple[int, IntArray]  # a row of the table, and numbers of its read positions
# Read positions of a timeline that an encoder-decoder is trained on in an epoch: each of them is a
# sequence of its own there.
POSITIONS_PER_EPOCH = 4
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
    labels, label_renaming
        Share of the sequences in whose ticks these labels are replaced by random names, each by the
        same one throughout a sequence: scores then depend less on the names of categories.

    Raises
    ------
    TrainingError
        If a timeline has no read position, a read position no target, or a line no text.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        model: LanguageModel,
        *,
        batch_positions: int,
        line_share: float = 0.0,
        labels: Sequence[str] = (),
        label_renaming: float = 0.0,
        seed: int = 0,
    ) -> None:
        columns = table.with_format("numpy")[:]
        self.back: list[IntArray] = [np.asarray(back, dtype=np.int64) for back in columns["back"]]
        self.log_prior: list[FloatArray] = [np.stack(list(rows)) for rows in columns["log_prior"]]
        self.shares: list[FloatArray] = [np.stack(list(rows)) for rows in columns["shares"]]
        self.target_titles = [_pad_titles(rows) for rows in columns["taken"]]
        for user, shares, line in zip(columns["user"], self.shares, columns["line"], strict=True):
            if not shares.sum(axis=-1).all() or not str(line).strip():
                raise TrainingError(f"a row has no label: that of user {str(user)!r}")
        self.prompts = model.encode_prompts([str(text) for text in columns["prompt"]])
        self.requests = model.encode_prompts([str(text) for text in columns["request"]])
        self.lines = model.encode([f" {line}" for line in columns["line"]])
        self.labels = {tuple(tokens) for tokens in model.encode([f" {label}" for label in labels])}
        self.label_lengths = sorted({len(label) for label in self.labels}, reverse=True)
        self.label_renaming = label_renaming
        end = model.encode_prompts([""])[0] if model.is_encoder_decoder else []
        self.n_end_tokens = len(end)
        tokens = {token for row in self.prompts for bag in row for part in bag for token in part}
        end_tokens = {token for bag in end for part in bag for token in part}
        self.name_tokens = sorted(tokens - end_tokens)
        self.is_encoder_decoder = model.is_encoder_decoder
        self.batch_positions, self.line_share, self.seed = batch_positions, line_share, seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        rng = np.random.default_rng((self.seed, n))
        samples = [
            (row, numbers)
            for row in range(len(self.back))
            for numbers in self._draw_read_positions(row, rng)
        ]
        order = rng.permutation(len(samples))
        batches = list(self._split([samples[i] for i in order]))
        has_line = rng.random(len(samples)) < self.line_share
        functions: list[Callable[[], dict[str, Any]]] = []
        start = 0
        for at in rng.permutation(len(batches)):
            batch = batches[at]
            flags = has_line[start : start + len(batch)]
            start += len(batch)
            functions.append(partial(self._make_batch, batch, flags, (self.seed, n, int(at))))
        return functions

    def validation_batches(self) -> Iterator[tuple[IntArray, list[list[Position]], ReadPositions]]:
        """Give each sequence once, with its newest read position: rows, prompts, read positions."""
        lengths = np.array([len(prompt) for prompt in self.prompts])
        order = np.argsort(-lengths, kind="stable")
        while len(order):
            n = max(1, self.batch_positions // int(lengths[order[0]]))
            rows, order = order[:n], order[n:]
            read_positions = ReadPositions(
                torch.arange(len(rows)),
                torch.zeros(len(rows), dtype=torch.long),
                _concatenate([self.log_prior[row][-1:] for row in rows]),
                _concatenate([self.shares[row][-1:] for row in rows]),
                _concatenate_titles([self.target_titles[row][-1:] for row in rows]),
            )
            yield rows, [self.prompts[row] for row in rows], read_positions

    def _draw_read_positions(self, row: int, rng: np.random.Generator) -> Iterator[IntArray]:
        """Give the read positions of each sequence: all of a timeline, or one each."""
        n = len(self.back[row])
        if not self.is_encoder_decoder:
            yield np.arange(n)
            return
        for number in rng.permutation(n)[:POSITIONS_PER_EPOCH]:
            yield np.array([number])

    def _sequence(self, row: int, numbers: IntArray) -> list[Position]:
        """Positions up to the last read position; the tokenizer's end token stays the last."""
        positions, stop = self.prompts[row], len(self.prompts[row]) - self.n_end_tokens
        return [*positions[: self._length((row, numbers)) - self.n_end_tokens], *positions[stop:]]

    def _rename_labels(
        self, positions: Sequence[Position], rng: np.random.Generator
    ) -> list[Position]:
        """Replace each label in pooled positions by a name of one to three random tokens.

        The first one may hold the shares of all earlier ticks, as one text with labels in it.
        """
        names: dict[Tokens, Tokens] = {}

        def name(label: Tokens) -> Tokens:
            if label not in names:
                names[label] = tuple(rng.choice(self.name_tokens, rng.integers(1, 4)).tolist())
            return names[label]

        renamed, pooled = list(positions), [i for i, bag in enumerate(positions) if len(bag) > 1]
        for i in pooled[1:]:
            renamed[i] = tuple(name(part) if part in self.labels else part for part in renamed[i])
        for i in pooled[:1]:
            renamed[i] = tuple(self._rename_inside(part, name) for part in renamed[i])
        return renamed

    def _rename_inside(self, text: Tokens, name: Callable[[Tokens], Tokens]) -> Tokens:
        """Replace the labels inside a text, the longest first."""
        renamed: list[int] = []
        while text:
            lengths = (n for n in self.label_lengths if text[:n] in self.labels)
            length = next(lengths, 0)
            renamed += name(text[:length]) if length else text[:1]
            text = text[length or 1 :]
        return tuple(renamed)

    def _length(self, sample: Sample) -> int:
        row, numbers = sample
        return len(self.prompts[row]) - int(self.back[row][numbers].min())

    def _split(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        """Split samples into batches of similar length."""
        mean = np.mean([self._length(sample) for sample in samples])
        size = max(1, int(SORT_BUCKET * self.batch_positions / mean))
        for start in range(0, len(samples), size):
            bucket = sorted(samples[start : start + size], key=self._length)
            while bucket:
                n = max(1, self.batch_positions // self._length(bucket[-1]))
                yield bucket[-n:]
                del bucket[-n:]

    def _make_batch(
        self, samples: Sequence[Sample], has_line: Any, entropy: tuple[int, ...]
    ) -> dict[str, Any]:
        rng = np.random.default_rng(entropy)
        sequences = [
            self._rename_labels(sequence, rng) if rng.random() < self.label_renaming else sequence
            for sequence in (self._sequence(*sample) for sample in samples)
        ]
        rows = np.repeat(np.arange(len(samples)), [len(numbers) for _, numbers in samples])
        backs = [self.back[row][n] - self.back[row][n].min() for row, n in samples]
        read_positions = ReadPositions(
            torch.from_numpy(rows),
            torch.from_numpy(np.concatenate(backs)),
            _concatenate([self.log_prior[row][numbers] for row, numbers in samples]),
            _concatenate([self.shares[row][numbers] for row, numbers in samples]),
            _concatenate_titles([self.target_titles[row][numbers] for row, numbers in samples]),
        )
        # A line belongs to the newest read position of its timeline.
        with_line = [row for (row, _), flag in zip(samples, has_line, strict=True) if flag]
        return {
            "prompts": sequences,
            "read_positions": read_positions,
            "requests": [self.requests[row] for row in with_line],
            "lines": [self.lines[row] for row in with_line],
            "n_positions": sum(map(len, sequences)),
        }


def _concatenate(parts: Sequence[FloatArray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def _pad_titles(rows: Sequence[Sequence[int]]) -> IntArray:
    """(n, max_titles) numbers of the titles after each read position, filled up with -1."""
    width = max(map(len, rows))
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], dtype=np.int64)


def _concatenate_titles(parts: Sequence[IntArray]) -> torch.Tensor:
    width = max(part.shape[1] for part in parts)
    padded = [
        np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts
    ]
    return torch.from_numpy(np.concatenate(padded))


class LineDataset:
    """The lines of all timelines in batches of similar length, see `EpochBatches`."""

    def __init__(self, timelines: TimelineBatches, max_lines: int | None = None) -> None:
        self.requests, self.lines = timelines.requests[:max_lines], timelines.lines[:max_lines]
        self.batch_positions, self.seed = timelines.batch_positions, timelines.seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        rng = np.random.default_rng((self.seed, n))
        # Lines of one length are batched with others in each epoch.
        jitter = rng.random(len(self.lines))
        order = sorted(range(len(self.lines)), key=lambda row: (self._length(row), jitter[row]))
        batches = list(self._split(order))
        return [partial(self._make_batch, batches[at]) for at in rng.permutation(len(batches))]

    def _length(self, row: int) -> int:
        return len(self.requests[row]) + len(self.lines[row])

    def _split(self, order: list[int]) -> Iterator[list[int]]:
        while order:
            n = max(1, self.batch_positions // self._length(order[-1]))
            yield order[-n:]
            del order[-n:]

    def _make_batch(self, rows: Sequence[int]) -> dict[str, Any]:
        return {
            "requests": [self.requests[row] for row in rows],
            "lines": [self.lines[row] for row in rows],
            "n_positions": sum(map(self._length, rows)),
        }
