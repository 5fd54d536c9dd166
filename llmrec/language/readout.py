"""A learned way from the hidden state at a read slot to category scores, through their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from llmrec.data.files import write_bytes
from llmrec.errors import ModelLoadError

if TYPE_CHECKING:
    from llmrec.language.reading import NameReadout

READOUT_FILE = "readout.safetensors"
M = TypeVar("M", bound=nn.Module)


class Readout(nn.Module):
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
        scores: Tensor = self.up(self.down(scaled(states))) @ names.T
        return scores

    def save(self, folder: Path) -> None:
        """Write the parameters as float32."""
        content = {"down": self.down.weight, "up": self.up.weight}
        tensors = {name: value.detach().float().contiguous() for name, value in content.items()}
        about = {} if self.depth is None else {"depth": str(self.depth)}
        write_bytes(folder / READOUT_FILE, save(tensors, about))

    @classmethod
    def load(cls, folder: Path, width: int) -> Readout:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If it is missing, damaged, of another width, or a parameter is not finite.
        """

        def made(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Readout:
            depth = about.get("depth")
            if depth is not None and int(depth) < 1:
                raise ValueError(f"its depth is {depth}")
            found = cls(width, len(tensors["down"]), None if depth is None else int(depth))
            found.load_state_dict({f"{name}.weight": v.float() for name, v in tensors.items()})
            return found

        return load_module(folder / READOUT_FILE, "readout", made)


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


def scaled(states: Tensor) -> Tensor:
    """Divide (n, d) states by their root mean square, in float32."""
    states = states.float()
    return states / states.pow(2).mean(dim=-1, keepdim=True).add(1e-6).sqrt()


def name_embeddings(readout: NameReadout, table: Tensor) -> Tensor:
    """(n_categories, d) mean embeddings of the labels' tokens, each of length 1, in float32."""
    rows = table.detach()[torch.from_numpy(readout.token_ids).to(table.device)].float()
    names: Tensor = torch.from_numpy(readout.matrix).float().to(table.device) @ rows
    normed: Tensor = names / names.norm(dim=1, keepdim=True)
    return normed
