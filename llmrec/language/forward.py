"""Forward passes: positions embedded, a decoder's state, and a cache of hidden states."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from llmrec.language.tokenization import Position, token_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrec.language.heads import TitleEmbeddings


KeysAndValues = Sequence[tuple[torch.Tensor, torch.Tensor]]


class StateReader(Protocol):
    """Reads prompts to the hidden states at their read positions, in place of torch.

    Attributes
    ----------
    depth
        Layers after which the states are taken; None: all.
    precision
        The backend and its kind of numbers, "openvino 8bit"; "" where states differ from those of
        torch in float32 no more than those of a batch differ from those of single prompts.
    batch_tokens
        Tokens in one batch.
    """

    depth: int | None
    precision: str
    batch_tokens: int

    def __call__(self, prompts: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, d) float32 states, on the CPU, of n prompts embedded as (n_positions, d)."""
        ...


class DecoderState:
    """A batch of token rows inside a model, which is fed blocks of new tokens.

    The tokens of a block are on the right and what is left of shorter ones is masked, so a row may
    get any number of tokens and its newest one is always in the last column. Positions are given
    explicitly and padding has no token of its own: a row never sees how long the others are.

    Parameters
    ----------
    model
        A decoder, or an encoder-decoder (its encoder gets the prompts here).
    prompts
        (n_rows,) positions of each prompt, none empty.
    title_embeddings
        Of an adapter, if it has them.
    mean
        See `embed_positions`.
    use_cache
        False if only one block will be fed.
    reader
        Of hidden states of its depth, instead of the model.

    Attributes
    ----------
    first_block
        (n_rows,) what must be fed first: a decoder's prompts, or the start token of a decoder that
        has an encoder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[list[Position]],
        title_embeddings: TitleEmbeddings | None = None,
        *,
        mean: torch.Tensor | None = None,
        use_cache: bool = True,
        reader: StateReader | None = None,
    ) -> None:
        self._reader = reader
        self._model, self._title_embeddings, self._mean = model, title_embeddings, mean
        self._use_cache = use_cache
        self._cache: Any = None
        self._encoded: Any = None
        if model.config.is_encoder_decoder:
            embedded, self._mask = embed_positions(model, prompts, title_embeddings, mean)
            self._encoded = model.get_encoder()(inputs_embeds=embedded, attention_mask=self._mask)
            start = token_positions([model.config.decoder_start_token_id])
            self.first_block: list[list[Position]] = [start] * len(prompts)
        else:
            self.first_block = list(prompts)
            self._mask = torch.zeros((len(prompts), 0), dtype=torch.long, device=model.device)

    def continue_from(
        self, layers: KeysAndValues, n: int, make_cache: Callable[[KeysAndValues], Any]
    ) -> None:
        """Take the first n positions of the only row as read; `first_block` is the rest then.

        Parameters
        ----------
        layers
            Keys and values of those positions, or of more, in each layer that is used.
        make_cache
            What makes the model's cache of them: `llmrec.language.pretrained.decoder_cache`.
        """
        like: dict[str, Any] = {"device": self._model.device, "dtype": self._model.dtype}
        own = [(k[:, :, :n].to(**like), v[:, :, :n].to(**like)) for k, v in layers]
        self._cache = make_cache(own)
        self._mask = self._mask.new_ones((1, n))
        self.first_block = [self.first_block[0][n:]]

    @property
    def keys_and_values(self) -> KeysAndValues:
        """Of each layer, (n_rows, n_heads, n_positions, size) of all that was fed; none is padded.

        Only of a state that was continued (`continue_from`), from 0 positions on at least.
        """
        return [(layer.keys, layer.values) for layer in self._cache.layers]

    def max_block(self, block: Sequence[list[Position]]) -> int:
        """Give the most tokens that a row may be fed at once of those that a block holds.

        With an encoder the rows of a block must be equally long: relative positions are counted by
        column there, so a masked hole would shift them.
        """
        return (max if self._encoded is None else min)(map(len, block))

    def next_logits(self, block: Sequence[list[Position]] | None = None) -> torch.Tensor:
        """(n_rows, vocab) logits after each row's new tokens, which are fed here.

        Without a block they are those of the first.
        """
        embedded, context = self._prepare_inputs(self.first_block if block is None else block)
        if self._encoded is not None:
            context |= {"encoder_outputs": self._encoded, "attention_mask": self._mask}
            output = self._model(decoder_inputs_embeds=embedded, **context)
        else:
            output = self._model(inputs_embeds=embedded, logits_to_keep=1, **context)
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def hidden_states(self, depth: int | None = None) -> torch.Tensor:
        """(n_rows, d) hidden states after the first block, which is fed here.

        With a depth the states are those after so many layers; `next_logits` must then not be
        called for the same rows.
        """
        embedded, context = self._prepare_inputs(self.first_block)
        if self._reader is not None and self._reader.depth == depth:
            filled = zip(embedded.cpu(), self._mask.bool().cpu(), strict=True)
            return self._reader([row[mask] for row, mask in filled])
        if self._encoded is not None:
            context |= {"encoder_hidden_states": self._encoded.last_hidden_state}
            context |= {"encoder_attention_mask": self._mask}
        decoder = truncated_decoder(self._model, depth, wrap_mlp=_LastPosition)
        output = decoder(inputs_embeds=embedded, **context)
        self._cache = output.past_key_values
        states: torch.Tensor = output.last_hidden_state[:, -1]
        return states

    def _prepare_inputs(
        self, block: Sequence[list[Position]]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Give the embeddings of a block, and the model's arguments about what came before it."""
        embedded, mask = embed_positions(self._model, block, self._title_embeddings, self._mean)
        context: dict[str, Any] = {"past_key_values": self._cache, "use_cache": self._use_cache}
        if self._encoded is None:
            self._mask = torch.cat([self._mask, mask], dim=1)
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -mask.shape[1] :]
            context |= {"attention_mask": self._mask, "position_ids": positions}
        return embedded, context

    def select_rows(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        index = torch.tensor(rows, device=self._model.device)
        self._mask = self._mask[index]
        if self._encoded is not None:
            self._encoded.last_hidden_state = self._encoded.last_hidden_state[index]
        if self._cache is not None:
            self._cache.batch_select_indices(index)


class PromptCache:
    """Hidden states of the newest prompts, each computed once.

    What it holds is never changed in place: of threads that fill it at once the last one's stays,
    unless it was cleared meanwhile.

    Parameters
    ----------
    max_prompts
        Prompts that it holds.
    """

    def __init__(self, max_prompts: int) -> None:
        self.max_prompts = max_prompts
        self._states: dict[str, torch.Tensor] = {}
        self._n_cleared, self._lock = 0, threading.Lock()

    def clear(self) -> None:
        """Forget all of them, those that are computed just now included."""
        with self._lock:
            self._n_cleared += 1
            self._states = {}

    def states(
        self, prompts: Sequence[str], compute: Callable[[list[str]], torch.Tensor]
    ) -> torch.Tensor:
        """(n_prompts, d) states of prompts; ``compute`` gives those that are not stored."""
        stored, n_cleared = self._states, self._n_cleared
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in stored]
        computed = compute(missing)
        rows = {prompt: row.clone() for prompt, row in zip(missing, computed, strict=True)}
        stored = stored | rows
        with self._lock:
            if n_cleared == self._n_cleared:
                self._states = dict([*stored.items()][-self.max_prompts :])
        return torch.stack([stored[prompt] for prompt in prompts]) if prompts else computed


class _LastPosition(torch.nn.Module):
    """A module that treats each position alone, asked for the last one: (n, 1, d)."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.module(states[:, -1:])
        return found


def truncated_decoder(
    model: PreTrainedModel,
    depth: int | None,
    *,
    wrap_mlp: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
) -> Any:
    """Give a decoder's first layers with its last norm, as a module that shares their parameters.

    Nothing in the model is changed, so others may go on using it. Without a depth it is the whole
    decoder. ``wrap_mlp`` replaces the feed-forward network of the last of the layers, which may
    spare it the positions that nobody reads: only the states at the others are right then.

    Raises
    ------
    ValueError
        If the model has no such layers to choose from.
    """
    decoder: Any = model.get_decoder()
    layers = None if model.config.is_encoder_decoder else getattr(decoder, "layers", None)
    if depth is not None and (layers is None or not 1 <= depth <= len(layers)):
        n = "no" if layers is None else len(layers)
        raise ValueError(f"depth {depth} does not exist in a model of {n} decoder-only layers")
    if layers is None:
        return decoder
    layers = layers[:depth]
    if wrap_mlp and isinstance(mlp := getattr(layers[-1], "mlp", None), torch.nn.Module):
        layers[-1] = _with_modules(layers[-1], mlp=wrap_mlp(mlp))
    return _with_modules(decoder, layers=layers)


def _with_modules(module: torch.nn.Module, **others: torch.nn.Module) -> torch.nn.Module:
    """Copy a module with other parts; what is not replaced is shared."""
    found = copy.copy(module)
    found._modules = module._modules | others
    return found


def mean_embedding(model: PreTrainedModel) -> torch.Tensor:
    """(d,) mean of all rows of the embedding table."""
    return model.get_input_embeddings().weight.detach().mean(dim=0)


def embed_positions(
    model: PreTrainedModel,
    rows: Sequence[list[Position]],
    title_embeddings: TitleEmbeddings | None = None,
    mean: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n_rows, width, d) embeddings of positions, padded on the left, and the (n_rows, width) mask.

    A pooled position of n parts is m + (sum of (p - m)) / sqrt(n), with p a part's mean embedding
    and m the mean of all embeddings: about as far from m as one token is. One token is embedded as
    the model does it. Title embeddings are added to the positions that hold their titles. m is
    ``mean`` where it is known already: a model's `mean_embedding`.
    """
    width = max(len(row) for row in rows)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    filled = [position for row in rows for position in row]
    parts = [part for position in filled for part in position]
    device, table = model.device, model.get_input_embeddings().weight
    # Through numpy: a prompt may hold thousands of tokens in its pooled positions.
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    n_parts = np.fromiter(map(len, filled), np.int64, len(filled))
    tokens = np.fromiter(chain.from_iterable(parts), np.int64, lengths.sum())
    shares = np.repeat((1 / lengths).astype(np.float32), lengths)
    ids, weights = (torch.from_numpy(values).to(device) for values in (tokens, shares))
    sizes = torch.from_numpy(np.add.reduceat(lengths, n_parts.cumsum() - n_parts)).to(device)
    found = torch.nn.functional.embedding_bag(
        ids,
        table,
        sizes.cumsum(0) - sizes,
        mode="sum",
        per_sample_weights=weights.to(table.dtype),
    )
    if len(ids) > len(sizes):
        n = torch.from_numpy(n_parts[:, None]).to(found)
        mean = mean_embedding(model) if mean is None else mean
        found = torch.where(n == 1, found, mean + (found - n * mean) / n.sqrt())
    # Gemma's table scales what it gives.
    found = found * getattr(model.get_input_embeddings(), "embed_scale", 1.0)
    if title_embeddings is not None:
        found = found + title_embeddings(filled).to(found)
    embedded = found.new_zeros((len(rows), width, found.shape[1]))
    mask = mask.to(model.device)
    embedded[mask.bool()] = found
    return embedded, mask
