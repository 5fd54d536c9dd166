"""Batches of prompts, and lines generated token by token after them."""

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
from llmrec.language.tokenization import PlainTokenizer, Position, token_positions
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llguidance import LLMatcher


# Tokens in one batch: each pass over the weights serves all its lines.
GENERATION_BATCH_TOKENS = 8_192
# From (n_rows,) prompts, and whether more than one block will be fed, to their state.
StartState = Callable[[Sequence[list[Position]], bool], DecoderState]


@dataclass(frozen=True)
class Generation:
    """One generated line.

    Attributes
    ----------
    text
        The line, without the space it starts with.
    n_tokens
        Tokens generated, sampled and forced, an end token included.
    n_forced
        Those among them that the grammar forced.
    finished
        Whether the line came to its own end; a constrained one always does.
    """

    text: str
    n_tokens: int
    n_forced: int
    finished: bool


@dataclass
class LineState:
    """One line while it is generated.

    Attributes
    ----------
    is_end
        Whether a token ends a line that has no grammar.
    max_tokens
        Tokens the line may have. Without a grammar it is cut there; with one it must end before.
    temperature
        0 takes the likeliest token; otherwise logits are divided by it and a token is drawn.
    tokens
        What is generated so far, the token that ended the line included.
    finished
        Whether the line has come to its end, rather than been cut.
    """

    is_end: Callable[[int], bool]
    max_tokens: int
    temperature: float
    generator: np.random.Generator
    matcher: LLMatcher | None = None
    tokens: list[int] = field(default_factory=list)
    n_forced: int = 0
    finished: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will be generated."""
        return self.finished or len(self.tokens) >= self.max_tokens

    def to_generation(self, tokenizer: PlainTokenizer) -> Generation:
        """Give what was generated as text."""
        text = tokenizer.decode_line(self.tokens)
        return Generation(text, len(self.tokens), self.n_forced, self.finished)

    def append_forced(self) -> list[int]:
        """Append and return the tokens that the grammar leaves no choice about."""
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
            self.finished = any(map(self.is_end, tokens)) or self.finished
            return
        self.matcher.consume_tokens(tokens)
        if self.matcher.is_error():
            raise ValueError(
                "the grammar asks for text that this tokenizer cannot write: remove characters "
                f"outside its vocabulary from the labels ({self.matcher.get_error():.120})"
            )
        self.finished = self.matcher.is_stopped()
        if self.is_complete and not self.finished:
            raise ValueError(
                f"no end of the line within the {self.max_tokens} tokens that the model's context "
                "has left: bound the grammar or shorten the prompt"
            )

    def _choose(self, logits: npt.NDArray[np.float32]) -> int:
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = (logits.astype(np.float64) - logits.max()) / self.temperature
        weights = np.exp(scaled).cumsum()
        return int(np.searchsorted(weights, self.generator.random() * weights[-1], side="right"))


def start_lines(
    tokenizer: PlainTokenizer,
    prompts: Sequence[str],
    limits: Sequence[int],
    constrain: str | Sequence[str] | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[LineState]:
    """Start an empty line for each prompt; see `LanguageModel.generate`.

    Parameters
    ----------
    limits
        (n_prompts,) tokens that the model's context leaves for each line.

    Raises
    ------
    ValueError
        If a grammar is not one, or there are not as many of them as prompts.
    """
    grammars = [constrain] * len(prompts) if isinstance(constrain, str | None) else constrain
    compiled = {grammar: tokenizer.compile_grammar(grammar) for grammar in grammars if grammar}
    lines = []
    for prompt, limit, grammar in zip(prompts, limits, grammars, strict=True):
        matcher = compiled[grammar].deep_copy() if grammar else None
        max_tokens = limit if matcher else min(limit, max_new_tokens)
        generator = seeded_generator(seed, prompt)
        lines.append(LineState(tokenizer.is_end, max_tokens, temperature, generator, matcher))
    return lines


def generate_lines(
    start: StartState, rows: Sequence[list[Position]], lines: Sequence[LineState]
) -> None:
    """Generate all lines to their end, each after its row of prompt positions."""
    with torch.inference_mode():
        for batch in batch_by_length(rows, GENERATION_BATCH_TOKENS):
            _generate_batch(start([rows[i] for i in batch], True), [lines[i] for i in batch])


def _generate_batch(state: DecoderState, lines: Sequence[LineState]) -> None:
    """Generate the lines of one batch after the prompts of a new state.

    Forced tokens go into the model together with the sampled one before them; a line that is
    complete leaves the batch.
    """
    pending = [
        [*start, *token_positions(line.append_forced())]
        for start, line in zip(state.first_block, lines, strict=True)
    ]
    running = list(range(len(lines)))
    while remaining := [at for at, row in enumerate(running) if not lines[row].is_complete]:
        if len(remaining) < len(running):
            state.select_rows(remaining)
            running = [running[at] for at in remaining]
        width = state.max_block([pending[row] for row in running])
        logits = state.next_logits([pending[row][:width] for row in running]).float().cpu().numpy()
        for row, row_logits in zip(running, logits, strict=True):
            pending[row] = pending[row][width:] or token_positions(
                lines[row].append_next(row_logits)
            )


def continuation_logprobs(
    start: StartState, prompt: list[Position], rows: Sequence[list[int]]
) -> FloatArray:
    """(n,) log-probability of rows of tokens after a prompt, which is fed once a batch."""
    found, positions = np.empty(len(rows)), [token_positions(row) for row in rows]
    with torch.inference_mode():
        for batch in batch_by_length(positions, GENERATION_BATCH_TOKENS):
            found[batch] = _batch_logprobs(start([prompt], True), [rows[i] for i in batch])
    return found


def _batch_logprobs(state: DecoderState, rows: Sequence[list[int]]) -> FloatArray:
    """(n,) log-probability of rows of tokens after the one prompt of a new state."""
    logits = state.next_logits(state.first_block).expand(len(rows), -1)
    state.select_rows([0] * len(rows))
    found, running = np.zeros(len(rows)), list(range(len(rows)))
    for step in range(max(map(len, rows))):
        tokens = [rows[row][step] for row in running]
        index = torch.tensor(tokens, device=logits.device)[:, None]
        chosen = logits.float().log_softmax(dim=-1).gather(1, index)[:, 0]
        found[running] += chosen.double().cpu().numpy()
        remaining = [at for at, row in enumerate(running) if len(rows[row]) > step + 1]
        if not remaining:
            break
        state.select_rows(remaining)
        running = [running[at] for at in remaining]
        logits = state.next_logits([token_positions([tokens[at]]) for at in remaining])
    return found


def run_in_batches(
    rows: Sequence[list[Position]],
    width: int,
    compute: Callable[[list[list[Position]]], torch.Tensor],
    batch_tokens: int,
) -> torch.Tensor:
    """(n_rows, width) float32, on the CPU, of what ``compute`` gives for each batch of prompts."""
    found = torch.empty((len(rows), width))
    with torch.inference_mode():
        for batch in batch_by_length(rows, batch_tokens):
            found[batch] = compute([rows[i] for i in batch]).float().cpu()
    return found


def batch_by_length(rows: Sequence[list[Position]], batch_tokens: int) -> Iterator[list[int]]:
    """Divide rows into batches of similar length, longest first.

    A terminal shows a progress bar if it takes long.

    Parameters
    ----------
    batch_tokens
        Tokens in one batch, padding included.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    with tqdm(total=len(rows), unit="prompt", leave=False, disable=None) as bar:
        while order:
            n = max(1, batch_tokens // len(rows[order[0]]))
            batch, order = order[:n], order[n:]
            yield batch
            bar.update(len(batch))


def seeded_generator(seed: int, prompt: str) -> np.random.Generator:
    """Make the generator of a prompt: it draws the same whatever else is in the batch."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))
