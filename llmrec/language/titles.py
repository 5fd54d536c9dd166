"""What an adapter learned of titles beyond their words: a vector for each that it met."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from llmrec.contracts import IntArray
from llmrec.data.files import write_bytes
from llmrec.language.plaintext import Position
from llmrec.language.readout import load_module, scaled

TITLES_FILE = "titles.safetensors"


class TitleMemory(nn.Module):
    """A vector v_i for each title i, beside the words that any title is read by.

    A bag of n parts that holds title i is embedded with U v_i / sqrt(n) added, and what is taken
    after a hidden state h has log-weights v_i . Q h + b_i over all titles (as in SASRec, Kang and
    McAuley 2018, arXiv 1808.09781: the same vectors are read and foretold). A new memory adds
    nothing to an embedding. A title that it does not know is read by its words alone.

    Parameters
    ----------
    keys
        (n_titles,) from `title_keys`: titles are known by their hash, no text is kept.
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
                known = [row for part in position if (row := self.row(part)) >= 0]
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
        found: Tensor = self.asked(scaled(states)) @ self.vectors.weight.T + self.common
        return found

    def row(self, part: tuple[int, ...]) -> int:
        """Give the number of the title that has these tokens in a bag; -1 if none has."""
        if part not in self._row_of_part:
            self._row_of_part[part] = self._row_of_key.get(title_key(part), -1)
        return self._row_of_part[part]

    def save(self, folder: Path) -> None:
        """Write keys and parameters, these as float32."""
        values = {name: value.detach().float() for name, value in self.named_parameters()}
        tensors = {"keys": self.keys} | values
        content = {name: value.cpu().contiguous() for name, value in tensors.items()}
        write_bytes(folder / TITLES_FILE, save(content))

    @classmethod
    def load(cls, folder: Path, width: int) -> TitleMemory:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If it is missing, damaged, of another width, or a parameter is not finite.
        """

        def made(tensors: dict[str, Tensor], about: Mapping[str, str]) -> TitleMemory:
            keys, (_, rank) = tensors.pop("keys"), tensors["vectors.weight"].shape
            found = cls(keys.numpy(), width, rank)
            found.load_state_dict(tensors)
            return found

        return load_module(folder / TITLES_FILE, "memory", made)


def title_key(tokens: Sequence[int]) -> int:
    """Hash the tokens of a title as it stands in a bag."""
    content = np.asarray(tokens, dtype="<i4").tobytes()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def title_keys(rows: Sequence[Sequence[int]]) -> IntArray:
    """(n,) `title_key` of each row of tokens."""
    return np.array([title_key(row) for row in rows], dtype=np.int64)
