"""Heads on hidden states: category scores from label embeddings, and title probabilities."""

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

from llmrec.data.files import atomic_write_bytes, require_regular
from llmrec.data.json_values import UNREADABLE
from llmrec.data.versions import TITLE_EMBEDDINGS_KEYS, rename_keys
from llmrec.errors import ModelLoadError
from llmrec.language.adapters import CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE
from llmrec.language.folder_checks import MAX_LAYERS
from llmrec.language.tokenization import Position
from llmrec.types import FloatArray, IntArray


class Verbalizer:
    """A fixed sparse (n_categories, n_tokens) matrix that averages over each label's tokens.

    Nothing is trained, so it works for any categories.

    Parameters
    ----------
    labels
        (n_categories,) labels of prompts and lines.
    encode
        Texts to token ids, without special tokens: `LanguageModel.encode`. It gets labels with a
        space before them, as they stand in the middle of a sentence.

    Attributes
    ----------
    token_ids
        (n_tokens,) sorted, unique: the only logits that `scores` needs.
    matrix
        (n_categories, n_tokens) share of each token in each label, sparse.

    Raises
    ------
    ValueError
        If there are no labels, or one has no tokens.
    """

    token_ids: IntArray
    matrix: sparse.csr_array

    def __init__(
        self, labels: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]
    ) -> None:
        if not labels:
            raise ValueError("a verbalizer needs at least one label")
        rows = encode([f" {label}" for label in labels])
        lengths = np.array([len(row) for row in rows])
        if not lengths.all():
            empty = int(np.argmin(lengths))
            raise ValueError(f"label {empty} ({labels[empty]!r}) has no tokens: rename it")
        flat = np.fromiter((token for row in rows for token in row), np.int64, lengths.sum())
        self.token_ids, columns = np.unique(flat, return_inverse=True)
        # A token that occurs twice in a label counts twice: duplicates are summed.
        self.matrix = sparse.coo_array(
            (np.repeat(1 / lengths, lengths), (np.repeat(np.arange(len(rows)), lengths), columns)),
            shape=(len(rows), len(self.token_ids)),
        ).tocsr()

    def scores(self, logits: FloatArray) -> FloatArray:
        """Average the (n, n_tokens) logits of `token_ids` into (n, n_categories) scores."""
        return np.ascontiguousarray((self.matrix @ logits.T).T, dtype=np.float64)


M = TypeVar("M", bound=nn.Module)


class CategoryHead(nn.Module):
    """Trained map from a hidden state to category scores.

    z_c = e_c . up(down(h)), with h the hidden state divided by its root mean square and e_c the
    embedding of category c's label, see `label_embeddings`. No parameter belongs to a category, so
    any of them can be scored. A new head gives 0 everywhere.

    Parameters
    ----------
    width
        Size d of a hidden state.
    rank
        Size of the space between ``down`` and ``up``.
    depth
        Layers of a decoder after which the state is taken; None: all.
    """

    def __init__(self, width: int, rank: int, depth: int | None = None) -> None:
        super().__init__()
        self.depth = depth
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor, labels: Tensor) -> Tensor:
        """(n, n_categories) scores of (n, d) states, from (n_categories, d) label embeddings."""
        scores: Tensor = self.up(self.down(rms_normalize(states))) @ labels.T
        return scores

    def category_scores(self, states: Tensor, verbalizer: Verbalizer, table: Tensor) -> FloatArray:
        """(n, n_categories) scores of labels' tokens in an embedding table, see `forward`."""
        with torch.inference_mode():
            scores = self(states, label_embeddings(verbalizer, table).cpu())
        return np.asarray(scores.numpy(), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write the parameters as float32."""
        content = {"down": self.down.weight, "up": self.up.weight}
        tensors = {name: value.detach().float().contiguous() for name, value in content.items()}
        metadata = {} if self.depth is None else {"depth": str(self.depth)}
        atomic_write_bytes(folder / CATEGORY_HEAD_FILE, save(tensors, metadata))

    @classmethod
    def load(cls, folder: Path, width: int) -> CategoryHead:
        """Load the file that `save` wrote.

        Raises
        ------
        ModelLoadError
            If it is missing, damaged, of another width, or a parameter is not finite.
        """

        def build(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> CategoryHead:
            depth = metadata.get("depth")
            if depth is not None and not 1 <= int(depth) <= MAX_LAYERS:
                raise ValueError(f"its depth is {depth}")
            rank = len(tensors["down"])
            _require_shapes(tensors, {"down": (rank, width), "up": (width, rank)})
            found = cls(width, rank, None if depth is None else int(depth))
            found.load_state_dict({f"{name}.weight": v.float() for name, v in tensors.items()})
            return found

        return _load_module(folder / CATEGORY_HEAD_FILE, "category head", build)


def _load_module(
    path: Path, what: str, build: Callable[[dict[str, Tensor], Mapping[str, str]], M]
) -> M:
    """Load a module in evaluation mode from a safetensors file's tensors and metadata.

    Raises
    ------
    ModelLoadError
        If the file is missing or damaged, ``build`` fails, or a parameter is not finite.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = build(tensors, file.metadata() or {})
    except (*UNREADABLE, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(f"{path} holds no {what} of this base model: {error}") from error
    if not all(bool(torch.isfinite(value).all()) for value in found.parameters()):
        raise ModelLoadError(f"{path}: a parameter is not finite; train it again")
    found.eval()
    return found


def _require_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the tensors have these shapes: a module of another would be huge."""
    for name in sorted(tensors.keys() | shapes.keys()):
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shapes.get(name):
            raise ValueError(f"the shape of {name!r} is {found}, not {shapes.get(name)}")


def rms_normalize(states: Tensor) -> Tensor:
    """Divide (n, d) states by their root mean square, in float32."""
    states = states.float()
    return states / states.pow(2).mean(dim=-1, keepdim=True).add(1e-6).sqrt()


def label_embeddings(verbalizer: Verbalizer, table: Tensor) -> Tensor:
    """(n_categories, d) mean embeddings of the labels' tokens, each of length 1, in float32."""
    rows = table.detach()[torch.from_numpy(verbalizer.token_ids).to(table.device)].float()
    means = torch.from_numpy(verbalizer.matrix.astype(np.float32) @ rows.cpu().numpy())
    normed: Tensor = means / means.norm(dim=1, keepdim=True)
    return normed.to(table.device)


class TitleEmbeddings(nn.Module):
    """A trained vector v_i for each title i, beside the embeddings of its tokens.

    A pooled position of n parts that holds title i gets U v_i / sqrt(n) added to its embedding, and
    the title taken after a hidden state h has log-weights v_i . Q h + b_i over all titles (as in
    SASRec, Kang and McAuley 2018, arXiv 1808.09781: inputs and outputs share their vectors). New
    title embeddings add nothing. A title that has none is embedded by its tokens alone.

    Parameters
    ----------
    keys
        (n_titles,) from `title_hashes`: titles are found by their hash, no text is stored.
    width, rank
        Sizes of an embedding and of a title's vector.
    dropout
        Share of the titles in a prompt that are embedded by their tokens alone in training.
    """

    keys: Tensor

    def __init__(self, keys: IntArray, width: int, rank: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("keys", torch.from_numpy(keys), persistent=False)
        self.vectors = nn.Embedding(len(keys), rank)
        self.input_projection = nn.Linear(rank, width, bias=False)
        self.query_projection = nn.Linear(width, rank, bias=False)
        self.bias = nn.Parameter(torch.zeros(len(keys)))
        nn.init.normal_(self.vectors.weight, std=0.02)
        nn.init.zeros_(self.input_projection.weight)
        self._row_of_key = {key: row for row, key in enumerate(keys.tolist())}
        self._row_of_part: dict[tuple[int, ...], int] = {}

    def forward(self, positions: Sequence[Position]) -> Tensor:
        """(n_positions, width) vectors to add to the embeddings of positions."""
        rows, places, shares = [], [], []
        for place, position in enumerate(positions):
            if len(position) > 1:  # one token of running text is no title
                titles = [row for part in position if (row := self.row_of(part)) >= 0]
                rows += titles
                places += [place] * len(titles)
                shares += [len(position) ** -0.5] * len(titles)
        device, width = self.vectors.weight.device, self.input_projection.out_features
        weights = torch.tensor(shares, device=device)
        if self.training and self.dropout:
            weights = weights * (torch.rand_like(weights) >= self.dropout)
        vectors = self.vectors(torch.tensor(rows, dtype=torch.long, device=device))
        found = vectors.new_zeros((len(positions), width))
        index = torch.tensor(places, dtype=torch.long, device=device)
        return found.index_add(0, index, self.input_projection(vectors) * weights[:, None])

    def scores(self, states: Tensor) -> Tensor:
        """(n, n_titles) log-weights, not normalized, of the next title after (n, width) states."""
        queries = self.query_projection(rms_normalize(states))
        found: Tensor = queries @ self.vectors.weight.T + self.bias
        return found

    def probabilities(self, states: Tensor) -> FloatArray:
        """(n, n_titles) probabilities of the next title after (n, width) states."""
        with torch.inference_mode():
            scores = self.scores(states.to(self.bias.device))
            found = torch.softmax(scores.double(), dim=1)
        return np.asarray(found.cpu().numpy())

    def row_of(self, part: tuple[int, ...]) -> int:
        """Give the row of the title that has these tokens; -1 if none has."""
        if part not in self._row_of_part:
            self._row_of_part[part] = self._row_of_key.get(title_hash(part), -1)
        return self._row_of_part[part]

    def save(self, folder: Path) -> None:
        """Write keys and parameters, these as float32."""
        values = {name: value.detach().float() for name, value in self.named_parameters()}
        stored = {name: key for key, name in TITLE_EMBEDDINGS_KEYS.items()}
        tensors = {"keys": self.keys} | rename_keys(values, stored)
        content = {name: value.cpu().contiguous() for name, value in tensors.items()}
        atomic_write_bytes(folder / TITLE_EMBEDDINGS_FILE, save(content))

    @classmethod
    def load(cls, folder: Path, width: int) -> TitleEmbeddings:
        """Load the file that `save` wrote.

        Raises
        ------
        ModelLoadError
            If it is missing, damaged, of another width, or a parameter is not finite.
        """

        def build(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> TitleEmbeddings:
            tensors = rename_keys(tensors, TITLE_EMBEDDINGS_KEYS)
            n_titles, rank = tensors["vectors.weight"].shape
            shapes = {"keys": (n_titles,), "bias": (n_titles,), "vectors.weight": (n_titles, rank)}
            shapes["input_projection.weight"] = (width, rank)
            shapes["query_projection.weight"] = (rank, width)
            _require_shapes(tensors, shapes)
            found = cls(tensors.pop("keys").numpy(), width, rank)
            found.load_state_dict(tensors)
            return found

        return _load_module(folder / TITLE_EMBEDDINGS_FILE, "title embeddings", build)


def load_heads(
    folder: Path, width: int, device: torch.device
) -> tuple[CategoryHead | None, TitleEmbeddings | None]:
    """Load those of the two heads that a folder holds, the titles on a device.

    Raises
    ------
    ModelLoadError
        If a file is damaged, of another width, or a parameter is not finite.
    """
    has_head, has_titles = (
        (folder / name).exists() for name in (CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE)
    )
    return (
        CategoryHead.load(folder, width) if has_head else None,
        TitleEmbeddings.load(folder, width).to(device) if has_titles else None,
    )


def title_hash(tokens: Sequence[int]) -> int:
    """Hash the tokens of a title as a part of a pooled position."""
    content = np.asarray(tokens, dtype="<i4").tobytes()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def title_hashes(rows: Sequence[Sequence[int]]) -> IntArray:
    """(n,) `title_hash` of each row of tokens."""
    return np.array([title_hash(row) for row in rows], dtype=np.int64)
