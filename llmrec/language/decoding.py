"""Writing a batch of lines: the model's cache of them, and the choice of each next token."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from llmrec.contracts import FloatArray
from llmrec.language.plaintext import Position, singly

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from transformers import PreTrainedModel

    from llmrec.language.titles import TitleMemory


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
        (n_rows,) positions of each prompt, none empty.
    memory
        Of an adapter, if it has one: what it knows of titles.
    keep_cache
        False if only one block will be fed.

    Attributes
    ----------
    first_block
        (n_rows,) what `feed` must get first: a decoder's prompts, or the start token of a decoder
        that has an encoder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[list[Position]],
        memory: TitleMemory | None = None,
        *,
        keep_cache: bool = True,
    ) -> None:
        self._model, self._memory = model, memory
        self._keep_cache, self._cache = keep_cache, None
        self._encoded: Any = None
        if model.config.is_encoder_decoder:
            embedded, self._mask = embed(model, prompts, memory)
            self._encoded = model.get_encoder()(inputs_embeds=embedded, attention_mask=self._mask)
            start = singly([model.config.decoder_start_token_id])
            self.first_block: list[list[Position]] = [start] * len(prompts)
        else:
            self.first_block = list(prompts)
            self._mask = torch.zeros((len(prompts), 0), dtype=torch.long, device=model.device)

    def width(self, block: Sequence[list[Position]]) -> int:
        """Give the most tokens that a row may be fed at once when these are waiting.

        With an encoder the rows of a block must be equally long: relative positions are counted by
        column there, so a masked hole would shift them.
        """
        return (max if self._encoded is None else min)(map(len, block))

    def feed(self, block: Sequence[list[Position]]) -> torch.Tensor:
        """Give each row its new tokens and return the (n_rows, vocab) logits after them."""
        embedded, seen = self._inputs(block)
        if self._encoded is not None:
            seen |= {"encoder_outputs": self._encoded, "attention_mask": self._mask}
            output = self._model(decoder_inputs_embeds=embedded, **seen)
        else:
            output = self._model(inputs_embeds=embedded, logits_to_keep=1, **seen)
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def states(self, block: Sequence[list[Position]], depth: int | None = None) -> torch.Tensor:
        """Give each row its new tokens and return the (n_rows, d) hidden states after them.

        With a depth the states are those after so many layers; `feed` and this must then not take
        turns on one session.
        """
        embedded, seen = self._inputs(block)
        if self._encoded is not None:
            seen |= {"encoder_hidden_states": self._encoded.last_hidden_state}
            seen |= {"encoder_attention_mask": self._mask}
        output = lower_layers(self._model, depth)(inputs_embeds=embedded, **seen)
        self._cache = output.past_key_values
        states: torch.Tensor = output.last_hidden_state[:, -1]
        return states

    def _inputs(self, block: Sequence[list[Position]]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Embed a block; say what was seen before it."""
        embedded, mask = embed(self._model, block, self._memory)
        seen: dict[str, Any] = {"past_key_values": self._cache, "use_cache": self._keep_cache}
        if self._encoded is None:
            self._mask = torch.cat([self._mask, mask], dim=1)
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -mask.shape[1] :]
            seen |= {"attention_mask": self._mask, "position_ids": positions}
        return embedded, seen

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index = torch.tensor(rows, device=self._model.device)
        self._mask = self._mask[index]
        if self._encoded is not None:
            self._encoded.last_hidden_state = self._encoded.last_hidden_state[index]
        if self._cache is not None:
            self._cache.batch_select_indices(index)


def lower_layers(model: PreTrainedModel, depth: int | None) -> Any:
    """Give a decoder's first layers with its last norm, as a module that shares their parameters.

    Nothing in the model is changed, so others may go on using it. Without a depth it is the whole
    decoder.

    Raises
    ------
    ValueError
        If the model has no such layers to choose from.
    """
    decoder: Any = model.get_decoder()
    if depth is None:
        return decoder
    layers = getattr(decoder, "layers", None)
    if model.config.is_encoder_decoder or layers is None or not 1 <= depth <= len(layers):
        n = "no" if layers is None else len(layers)
        raise ValueError(f"depth {depth} cannot be read in a model of {n} decoder-only layers")
    shallow = copy.copy(decoder)
    shallow._modules = decoder._modules | {"layers": layers[:depth]}
    return shallow


def embed(
    model: PreTrainedModel,
    rows: Sequence[list[Position]],
    memory: TitleMemory | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n_rows, width, d) embeddings of positions, padded on the left, and the (n_rows, width) mask.

    A bag of n parts is m + (sum of (p - m)) / sqrt(n), with p a part's mean embedding and m the
    mean of all embeddings: about as far from m as one token is. One token is embedded as ever. A
    memory adds what it knows of the titles in a bag.
    """
    width = max(len(row) for row in rows)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    filled = [position for row in rows for position in row]
    parts = [part for position in filled for part in position]
    device, table = model.device, model.get_input_embeddings().weight
    ids = torch.tensor([token for part in parts for token in part], device=device)
    sizes = torch.tensor([sum(map(len, position)) for position in filled], device=device)
    weights = torch.tensor([1 / len(part) for part in parts for _ in part], device=device)
    found = torch.nn.functional.embedding_bag(
        ids,
        table,
        sizes.cumsum(0) - sizes,
        mode="sum",
        per_sample_weights=weights.to(table.dtype),
    )
    if len(ids) > len(sizes):
        n = torch.tensor([[len(position)] for position in filled], device=device).to(found)
        mean = table.detach().mean(dim=0)
        found = torch.where(n == 1, found, mean + (found - n * mean) / n.sqrt())
    # Gemma's table scales what it gives.
    found = found * getattr(model.get_input_embeddings(), "embed_scale", 1.0)
    if memory is not None:
        found = found + memory(filled).to(found)
    embedded = found.new_zeros((len(rows), width, found.shape[1]))
    mask = mask.to(model.device)
    embedded[mask.bool()] = found
    return embedded, mask


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


def write_lines(session: Session, lines: Sequence[Line]) -> None:
    """Write all lines to their end, each after its prompt in a new session, in one batch.

    Forced tokens go into the model together with the sampled one before them; a line that has ended
    leaves the batch.
    """
    pending = [
        [*start, *singly(line.force())]
        for start, line in zip(session.first_block, lines, strict=True)
    ]
    running = list(range(len(lines)))
    while still := [at for at, row in enumerate(running) if not lines[row].ended]:
        if len(still) < len(running):
            session.keep(still)
            running = [running[at] for at in still]
        width = session.width([pending[row] for row in running])
        logits = session.feed([pending[row][:width] for row in running]).float().cpu().numpy()
        for row, after in zip(running, logits, strict=True):
            pending[row] = pending[row][width:] or singly(lines[row].write(after))


def continuation_logprobs(session: Session, rows: Sequence[list[int]]) -> FloatArray:
    """(n,) log-probability of rows of tokens after the one prompt of a session."""
    logits = session.feed(session.first_block).expand(len(rows), -1)
    session.keep([0] * len(rows))
    found, running = np.zeros(len(rows)), list(range(len(rows)))
    for step in range(max(map(len, rows))):
        tokens = [rows[row][step] for row in running]
        index = torch.tensor(tokens, device=logits.device)[:, None]
        chosen = logits.float().log_softmax(dim=-1).gather(1, index)[:, 0]
        found[running] += chosen.double().cpu().numpy()
        still = [at for at, row in enumerate(running) if len(rows[row]) > step + 1]
        if not still:
            break
        session.keep(still)
        running = [running[at] for at in still]
        logits = session.feed([singly([tokens[at]]) for at in still])
    return found
