"""Writing a batch of lines: the model's cache of them, and the choice of each next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from transformers import PreTrainedModel


class Session:
    """Rows of tokens inside a model: feeds it blocks of new tokens, gives the logits after each.

    The tokens of a block are on the right and what is left of shorter ones is masked, so a row may
    get any number of tokens and its newest one is always in the last column. Positions are given
    explicitly and padding has no token of its own: a row never sees how long the others are.

    Parameters
    ----------
    model
        A decoder, or an encoder-decoder (its encoder reads the prompts here).
    prompts
        (n_rows,) token ids of each prompt, none empty.
    keep_cache
        False if only one block will be fed.

    Attributes
    ----------
    first_block
        (n_rows,) what `feed` must get first: a decoder's prompts, or the start token of a decoder
        that has an encoder.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], *, keep_cache: bool = True
    ) -> None:
        self._model, self._keep_cache, self._cache = model, keep_cache, None
        self._encoded: Any = None
        ids, mask = self._padded(prompts)
        if model.config.is_encoder_decoder:
            self._encoded = model.get_encoder()(input_ids=ids, attention_mask=mask)
            self.first_block = [[model.config.decoder_start_token_id]] * len(prompts)
            self._mask = mask
        else:
            self.first_block = list(prompts)
            self._mask = mask[:, :0]

    def width(self, block: Sequence[list[int]]) -> int:
        """Give the most tokens that a row may be fed at once when these are waiting.

        With an encoder the rows of a block must be equally long: relative positions are counted by
        column there, so a masked hole would shift them.
        """
        return (max if self._encoded is None else min)(map(len, block))

    def feed(self, block: Sequence[list[int]]) -> torch.Tensor:
        """Give each row its new tokens and return the (n_rows, vocab) logits after them."""
        ids, mask = self._padded(block)
        inputs: dict[str, Any] = {"past_key_values": self._cache, "use_cache": self._keep_cache}
        if self._encoded is not None:
            inputs |= {"encoder_outputs": self._encoded, "decoder_input_ids": ids}
        else:
            self._mask = torch.cat([self._mask, mask], dim=1)
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            inputs |= {"input_ids": ids, "position_ids": positions, "logits_to_keep": 1}
        output = self._model(attention_mask=self._mask, **inputs)
        self._cache = output.past_key_values
        return output.logits[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index = torch.tensor(rows, device=self._model.device)
        self._mask = self._mask[index]
        if self._encoded is not None:
            self._encoded.last_hidden_state = self._encoded.last_hidden_state[index]
        if self._cache is not None:
            self._cache.batch_select_indices(index)

    def _padded(self, block: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(row) for row in block)
        ids = [[0] * (width - len(row)) + row for row in block]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in block]
        both = torch.tensor([ids, mask], device=self._model.device)
        return both[0], both[1]


@dataclass
class Line:
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

    def force(self) -> list[int]:
        """Write and return the tokens that the grammar leaves no choice about."""
        forced = [] if self.matcher is None else self.matcher.compute_ff_tokens()
        self.n_forced += len(forced)
        self._append(forced)
        return forced

    def write(self, logits: npt.NDArray[np.float32]) -> list[int]:
        """Choose the next token by (vocab,) logits; return it and those that it forces."""
        if self.matcher is not None:
            bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")[: len(logits)]
            logits = np.where(allowed, logits, -np.inf)
        token = self._choose(logits)
        self._append([token])
        return [token, *self.force()]

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


def write_lines(
    model: PreTrainedModel, prompts: Sequence[list[int]], lines: Sequence[Line]
) -> None:
    """Write all lines to their end, each after its prompt's token ids, in one batch.

    Forced tokens go into the model together with the sampled one before them; a line that has ended
    leaves the batch.
    """
    session = Session(model, prompts)
    pending = [
        [*start, *line.force()] for start, line in zip(session.first_block, lines, strict=True)
    ]
    running = list(range(len(lines)))
    while still := [at for at, row in enumerate(running) if not lines[row].ended]:
        if len(still) < len(running):
            session.keep(still)
            running = [running[at] for at in still]
        width = session.width([pending[row] for row in running])
        logits = session.feed([pending[row][:width] for row in running]).float().cpu().numpy()
        for row, after in zip(running, logits, strict=True):
            pending[row] = pending[row][width:] or lines[row].write(after)
