"""Heads on a hidden state: category scores through the categories' names, and title embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy import sparse
from torch import Tensor, nn

from llmrec.data.files import atomic_write_bytes
from llmrec.errors import ModelLoadError
from llmrec.language.tokenization import Position
from llmrec.types import FloatArray, IntArray


class Verbalizer:
    """A fixed (n_categories, n_tokens) matrix that averages the logits of each label's tokens.

    Nothing is trained, so it works for any number of categories, unseen ones included.

    Parameters
    ----------
    labels
        (n_categories,) labels, as they are written in prompts and lines.
    encode
        Texts to token ids, without special tokens: `LanguageModel.encode`. Labels are given to it
        with a space before them, as they stand in the middle of a sentence.

    Attributes
    ----------
    token_ids
        (n_tokens,) sorted, unique: the only logits that `scores` needs.

    Raises
    ------
    ValueError
        If there are no labels, or one has no tokens.
    """

    token_ids: IntArray

    def __init__(
        self, labels: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]
    ) -> None:
        if not labels:
            raise ValueError("a readout needs at least one label")
        rows = encode([f" {label}" for label in labels])
        lengths = np.array([len(row) for row in rows])
        if not lengths.all():
            empty = int(np.argmin(lengths))
            raise ValueError(f"label {empty} ({labels[empty]!r}) has no tokens: rename it")
        flat = np.fromiter((token for row in rows for token in row), np.int64, lengths.sum())
        self.token_ids, columns = np.unique(flat, return_inverse=True)
        # A token that occurs twice in a label counts twice: duplicates are summed.
        self._mean = sparse.coo_array(
            (np.repeat(1 / lengths, lengths), (np.repeat(np.arange(len(rows)), lengths), columns)),
            shape=(len(rows), len(self.token_ids)),
        ).tocsr()

    @property
    def matrix(self) -> FloatArray:
        """(n_categories, n_tokens) share of each token in each label."""
        return np.asarray(self._mean.toarray(), dtype=np.float64)

    def scores(self, logits: FloatArray) -> FloatArray:
        """Average the (n, n_tokens) logits of `token_ids` into (n, n_categories) scores."""
        return np.ascontiguousarray((self._mean @ logits.T).T, dtype=np.float64)


CATEGORY_HEAD_FILE = "readout.safetensors"
M = TypeVar("M", bound=nn.Module)


class CategoryHead(nn.Module):
    """z_c = n_c . up(down(h)), with h the hidden state divided by its root mean square.

    n_c is the mean embedding of the tokens of category c's name, of length 1: there is no parameter
    that belongs to a category, so any set of them can be read, unseen ones included. A new readout
    gives 0 everywhere.

    Parameters
    ----------
    width
        Size d of a hidden state.
    rank
        Of the map in between.
    depth
        Layers of a decoder after which the state is read; None: all.
    """

    def __init__(self, width: int, rank: int, depth: int | None = None) -> None:
        super().__init__()
        self.depth = depth
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor, names: Tensor) -> Tensor:
        """(n, n_categories) scores of (n, d) states, from (n_categories, d) names."""
        scores: Tensor = self.up(self.down(rms_normalize(states))) @ names.T
        return scores

    def save(self, folder: Path) -> None:
        """Write the parameters as float32."""
        content = {"down": self.down.weight, "up": self.up.weight}
        tensors = {name: value.detach().float().contiguous() for name, value in content.items()}
        about = {} if self.depth is None else {"depth": str(self.depth)}
        atomic_write_bytes(folder / CATEGORY_HEAD_FILE, save(tensors, about))

    @classmethod
    def load(cls, folder: Path, width: int) -> CategoryHead:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If it is missing, damaged, of another width, or a parameter is not finite.
        """

        def made(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> CategoryHead:
            depth = about.get("depth")
            if depth is not None and int(depth) < 1:
                raise ValueError(f"its depth is {depth}")
            found = cls(width, len(tensors["down"]), None if depth is None else int(depth))
            found.load_state_dict({f"{name}.weight": v.float() for name, v in tensors.items()})
            return found

        return load_module(folder / CATEGORY_HEAD_FILE, "readout", made)


def load_module(
    path: Path, what: str, made: Callable[[dict[str, Tensor], Mapping[str, str]], M]
) -> M:
    """Make a module in evaluation mode of a safetensors file's tensors and metadata.

    Raises
    ------
    ModelLoadError
        If the file is missing or damaged, ``made`` refuses it, or a parameter is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = made(tensors, file.metadata() or {})
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(f"{path} is no {what} of this base model: {error}") from error
    if not all(bool(torch.isfinite(value).all()) for value in found.parameters()):
        raise ModelLoadError(f"{path}: a parameter is not finite; train it again")
    found.eval()
    return found


def rms_normalize(states: Tensor) -> Tensor:
    """Divide (n, d) states by their root mean square, in float32."""
    states = states.float()
    return states / states.pow(2).mean(dim=-1, keepdim=True).add(1e-6).sqrt()


def label_embeddings(readout: Verbalizer, table: Tensor) -> Tensor:
    """(n_categories, d) mean embeddings of the labels' tokens, each of length 1, in float32."""
    rows = table.detach()[torch.from_numpy(readout.token_ids).to(table.device)].float()
    names: Tensor = torch.from_numpy(readout.matrix).float().to(table.device) @ rows
    normed: Tensor = names / names.norm(dim=1, keepdim=True)
    return normed


TITLE_EMBEDDINGS_FILE = "titles.safetensors"


class TitleEmbeddings(nn.Module):
    """A vector v_i for each title i, beside the words that any title is read by.

    A bag of n parts that holds title i is embedded with U v_i / sqrt(n) added, and what is taken
    after a hidden state h has log-weights v_i . Q h + b_i over all titles (as in SASRec, Kang and
    McAuley 2018, arXiv 1808.09781: the same vectors are read and foretold). A new memory adds
    nothing to an embedding. A title that it does not know is read by its words alone.

    Parameters
    ----------
    keys
        (n_titles,) from `title_hashes`: titles are known by their hash, no text is kept.
    width, rank
        Sizes of an embedding and of a title's vector.
    dropout
        Share of the known titles in a prompt that are read by their words alone in training.
    """

    keys: Tensor

    def __init__(self, keys: IntArray, width: int, rank: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("keys", torch.from_numpy(keys), persistent=False)
        self.vectors = nn.Embedding(len(keys), rank)
        self.into = nn.Linear(rank, width, bias=False)
        self.asked = nn.Linear(width, rank, bias=False)
        self.common = nn.Parameter(torch.zeros(len(keys)))
        nn.init.normal_(self.vectors.weight, std=0.02)
        nn.init.zeros_(self.into.weight)
        self._row_of_key = {key: row for row, key in enumerate(keys.tolist())}
        self._row_of_part: dict[tuple[int, ...], int] = {}

    def forward(self, positions: Sequence[Position]) -> Tensor:
        """(n_positions, width) what is added to the embeddings of positions."""
        rows, places, shares = [], [], []
        for place, position in enumerate(positions):
            if len(position) > 1:  # one token of running text is no title
                known = [row for part in position if (row := self.row_of(part)) >= 0]
                rows += known
                places += [place] * len(known)
                shares += [len(position) ** -0.5] * len(known)
        device, width = self.vectors.weight.device, self.into.out_features
        weights = torch.tensor(shares, device=device)
        if self.training and self.dropout:
            weights = weights * (torch.rand_like(weights) >= self.dropout)
        vectors = self.vectors(torch.tensor(rows, dtype=torch.long, device=device))
        found = vectors.new_zeros((len(positions), width))
        index = torch.tensor(places, dtype=torch.long, device=device)
        return found.index_add(0, index, self.into(vectors) * weights[:, None])

    def scores(self, states: Tensor) -> Tensor:
        """(n, n_titles) log-weights, not normalised, of what is taken after (n, width) states."""
        found: Tensor = self.asked(rms_normalize(states)) @ self.vectors.weight.T + self.common
        return found

    def row_of(self, part: tuple[int, ...]) -> int:
        """Give the number of the title that has these tokens in a bag; -1 if none has."""
        if part not in self._row_of_part:
            self._row_of_part[part] = self._row_of_key.get(title_hash(part), -1)
        return self._row_of_part[part]

    def save(self, folder: Path) -> None:
        """Write keys and parameters, these as float32."""
        values = {name: value.detach().float() for name, value in self.named_parameters()}
        tensors = {"keys": self.keys} | values
        content = {name: value.cpu().contiguous() for name, value in tensors.items()}
        atomic_write_bytes(folder / TITLE_EMBEDDINGS_FILE, save(content))

    @classmethod
    def load(cls, folder: Path, width: int) -> TitleEmbeddings:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If it is missing, damaged, of another width, or a parameter is not finite.
        """

        def made(tensors: dict[str, Tensor], about: Mapping[str, str]) -> TitleEmbeddings:
            keys, (_, rank) = tensors.pop("keys"), tensors["vectors.weight"].shape
            found = cls(keys.numpy(), width, rank)
            found.load_state_dict(tensors)
            return found

        return load_module(folder / TITLE_EMBEDDINGS_FILE, "memory", made)


def title_hash(tokens: Sequence[int]) -> int:
    """Hash the tokens of a title as it stands in a bag."""
    content = np.asarray(tokens, dtype="<i4").tobytes()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def title_hashes(rows: Sequence[Sequence[int]]) -> IntArray:
    """(n,) `title_hash` of each row of tokens."""
    return np.array([title_hash(row) for row in rows], dtype=np.int64)
