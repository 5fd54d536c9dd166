"""Lines written token by token: batches of them, and the choice of each next token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from llmrec.language.forward import DecoderState
from llmrec.language.tokenization import Position, token_positions
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llguidance import LLMatcher


@dataclass
class LineState:
    """One line while it is written.

    Attributes
    ----------
    stops
        Says whether a token ends a line that has no grammar.
    room
        Tokens the line may have. Without a grammar it is cut there; with one it must end before.
    temperature
        0 takes the likeliest token; otherwise logits are divided by it and a token is drawn.
    tokens
        What is written so far, the token that ended the line included.
    finished
        Whether the line has come to its end, rather than been cut.
    """

    stops: Callable[[int], bool]
    room: int
    temperature: float
    generator: np.random.Generator
    matcher: LLMatcher | None = None
    tokens: list[int] = field(default_factory=list)
    n_forced: int = 0
    finished: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written."""
        return self.finished or len(self.tokens) >= self.room

    def append_forced(self) -> list[int]:
        """Write and return the tokens that the grammar leaves no choice about."""
        forced = [] if self.matcher is None else self.matcher.compute_ff_tokens()
        self.n_forced += len(forced)
        self._append(forced)
        return forced

    def append_next(self, logits: npt.NDArray[np.float32]) -> list[int]:
        """Choose the next token by (vocab,) logits; return it and those that it forces."""
        if self.matcher is not None:
            bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")[: len(logits)]
            logits = np.where(allowed, logits, -np.inf)
        token = self._choose(logits)
        self._append([token])
        return [token, *self.append_forced()]

    def _append(self, tokens: list[int]) -> None:
        self.tokens += tokens
        if self.matcher is None:
            self.finished = any(map(self.stops, tokens)) or self.finished
            return
        self.matcher.consume_tokens(tokens)
        if self.matcher.is_error():
            raise ValueError(
                "the grammar asks for text that this tokenizer cannot write: remove characters "
                f"outside its vocabulary from the labels ({self.matcher.get_error():.120})"
            )
        self.finished = self.matcher.is_stopped()
        if self.ended and not self.finished:
            raise ValueError(
                f"no end of the line within the {self.room} tokens that the model's context has "
                "left: bound the grammar or shorten the prompt"
            )

    def _choose(self, logits: npt.NDArray[np.float32]) -> int:
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = (logits.astype(np.float64) - logits.max()) / self.temperature
        weights = np.exp(scaled).cumsum()
        return int(np.searchsorted(weights, self.generator.random() * weights[-1], side="right"))


def generate_lines(session: DecoderState, lines: Sequence[LineState]) -> None:
    """Write all lines to their end, each after its prompt in a new session, in one batch.

    Forced tokens go into the model together with the sampled one before them; a line that has ended
    leaves the batch.
    """
    pending = [
        [*start, *token_positions(line.append_forced())]
        for start, line in zip(session.first_block, lines, strict=True)
    ]
    running = list(range(len(lines)))
    while still := [at for at, row in enumerate(running) if not lines[row].ended]:
        if len(still) < len(running):
            session.select_rows(still)
            running = [running[at] for at in still]
        width = session.max_block([pending[row] for row in running])
        logits = (
            session.next_logits([pending[row][:width] for row in running]).float().cpu().numpy()
        )
        for row, after in zip(running, logits, strict=True):
            pending[row] = pending[row][width:] or token_positions(lines[row].append_next(after))


def continuation_logprobs(session: DecoderState, rows: Sequence[list[int]]) -> FloatArray:
    """(n,) log-probability of rows of tokens after the one prompt of a session."""
    logits = session.next_logits(session.first_block).expand(len(rows), -1)
    session.select_rows([0] * len(rows))
    found, running = np.zeros(len(rows)), list(range(len(rows)))
    for step in range(max(map(len, rows))):
        tokens = [rows[row][step] for row in running]
        index = torch.tensor(tokens, device=logits.device)[:, None]
        chosen = logits.float().log_softmax(dim=-1).gather(1, index)[:, 0]
        found[running] += chosen.double().cpu().numpy()
        still = [at for at, row in enumerate(running) if len(rows[row]) > step + 1]
        if not still:
            break
        session.select_rows(still)
        running = [running[at] for at in still]
        logits = session.next_logits([token_positions([tokens[at]]) for at in still])
    return found


GENERATION_BATCH_TOKENS = 8_192


@dataclass(frozen=True)
class Generation:
    """One written line.

    Attributes
    ----------
    text
        The line, without the space it starts with.
    n_tokens
        Tokens written, sampled and forced, an end token included.
    n_forced
        Those among them that the grammar forced.
    finished
        Whether the line came to its own end; a constrained one always does.
    """

    text: str
    n_tokens: int
    n_forced: int
    finished: bool


def _batches(rows: Sequence[list[Position]], batch_tokens: int) -> Iterator[list[int]]:
    """Cut rows into batches of similar length, longest first; a bar shows on terminals if many."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    with tqdm(total=len(rows), unit="prompt", leave=False, disable=None) as bar:
        while order:
            n = max(1, batch_tokens // len(rows[order[0]]))
            batch, order = order[:n], order[n:]
            yield batch
            bar.update(len(batch))


def _generator(seed: int, prompt: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))
