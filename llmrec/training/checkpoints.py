"""Checkpoints that are complete or not there: parameters, optimizer, and the state of the run.

A checkpoint is the folder ``step-00000100``: safetensors and JSON, each synced, then
``complete.json`` with their hashes, and only then the name. Whatever a killed program or a full
disk leaves is no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from llmrec.data.files import (
    atomic_folder,
    atomic_write_bytes,
    atomic_write_text,
    require_regular,
)
from llmrec.data.json_values import (
    MAX_STORED_BYTES,
    MAX_STORED_ENTRIES,
    UNREADABLE,
    describe_error,
    read_json_object,
)
from llmrec.data.versions import CONFIG_KEYS, rename_keys, rename_parameter
from llmrec.errors import TrainingError

COMPLETE_FILE, STATE_FILE, CONFIG_FILE = "complete.json", "state.json", "config.json"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path

    @property
    def step(self) -> int:
        """Optimizer steps before it."""
        return int(self.path.name.removeprefix("step-"))

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read the tensors that were saved under a name, by today's names of parameters."""
        path = self.path / f"{name}.safetensors"
        try:
            tensors = load_file(path)
        except (*UNREADABLE, SafetensorError) as error:
            raise TrainingError(f"{path} cannot be read: {describe_error(error)}") from error
        return {rename_parameter(key): tensor for key, tensor in tensors.items()}

    def load_values(self) -> dict[str, Any]:
        """Read what was saved as JSON."""
        path = self.path / STATE_FILE
        try:
            return read_json_object(path, MAX_STORED_BYTES, MAX_STORED_ENTRIES)
        except UNREADABLE as error:
            raise TrainingError(f"{path} cannot be read: {describe_error(error)}") from error


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensors], values: Mapping[str, Any]
) -> None:
    """Save groups of tensors and JSON values as the checkpoint of a step.

    Raises
    ------
    TrainingError
        If it cannot be written, because the disk is full for instance. Earlier checkpoints stay as
        they are.
    """
    path = _checkpoint_path(folder, step)
    try:
        with atomic_folder(path) as partial:
            for name, group in tensors.items():
                copies = {key: tensor.detach().cpu().clone() for key, tensor in group.items()}
                atomic_write_bytes(partial / f"{name}.safetensors", save(copies))
            atomic_write_text(partial / STATE_FILE, json.dumps(values))
            atomic_write_text(partial / COMPLETE_FILE, json.dumps(_hash_files(partial)))
            shutil.rmtree(path, ignore_errors=True)  # a broken one of that step
    except OSError as error:
        raise TrainingError(
            f"the checkpoint of step {step} cannot be written to {folder}: {error.strerror}; "
            f"{_describe_last(folder)}"
        ) from error


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Find the newest complete checkpoint; a warning names broken ones, which are skipped."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if not (fault := _find_fault(path)):
            return Checkpoint(path)
        warnings.warn(f"the checkpoint {path} is not used: {fault}", stacklevel=2)
    return None


def checkpoint_at(folder: Path, step: int) -> Checkpoint:
    """Open the checkpoint of a step; TrainingError if it is not complete."""
    path = _checkpoint_path(folder, step)
    if fault := _find_fault(path):
        raise TrainingError(f"the checkpoint {path} cannot be used: {fault}")
    return Checkpoint(path)


def pack_optimizer(optimizer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split the state of an optimizer of named parameters: tensors, and values for JSON."""
    state = optimizer.state_dict()
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    entries = {
        f"{names[index]}:{key}": value
        for index, entry in state["state"].items()
        for key, value in entry.items()
    }
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in entries.items() if key not in tensors}
    return tensors, {"groups": state["param_groups"], "numbers": numbers}


def unpack_optimizer(optimizer: Any, tensors: Tensors, values: Mapping[str, Any]) -> None:
    """Load into an optimizer the state that `pack_optimizer` gave."""
    groups = [
        group | {"param_names": list(map(rename_parameter, group["param_names"]))}
        for group in values["groups"]
    ]
    names = [name for group in groups for name in group["param_names"]]
    state: dict[int, dict[str, Any]] = {}
    for entry, value in {**tensors, **values["numbers"]}.items():
        name, _, key = rename_parameter(entry).rpartition(":")
        state.setdefault(names.index(name), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def prune_checkpoints(folder: Path, step: int, *, keep: int, best: int) -> None:
    """Delete checkpoints up to a step, except the newest ``keep`` and the best."""
    for partial in folder.glob(".step-*.partial"):  # what a killed program left
        shutil.rmtree(partial, ignore_errors=True)
    last = _checkpoint_path(folder, step).name
    paths = sorted(path for path in folder.glob("step-*") if path.name <= last)
    for path in paths[:-keep]:
        if path != _checkpoint_path(folder, best):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def only_training_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; TrainingError if another training holds it.

    The system gives the lock back when its process ends, however that happens.
    """
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise TrainingError(
            f"another training is writing to {folder}: wait until it ends, or choose another --out"
        ) from error
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def hash_frozen_parameters(module: nn.Module) -> str:
    """Hash every byte of the parameters that are not trained: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, values in module.named_parameters():
        if not values.requires_grad:
            digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
            content = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(memoryview(content.numpy()))
    return digest.hexdigest()


def check_inputs(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise TrainingError if a run was started with other inputs, by their names and hashes."""
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise TrainingError(
                f"the run in {folder} was started with another {name} ({before[name]}, now "
                f"{now[name]}): continue with its own, or choose another --out"
            )


def lock_run_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the config of a run into its folder; TrainingError if another run's is there.

    The folder and the services that follow the run (``out``, ``report_to``) may change.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        try:
            atomic_write_text(path, json.dumps(config, indent=1))
        except OSError as error:
            raise TrainingError(f"{folder} cannot be written: {error.strerror}") from error
        return
    try:
        stored = rename_keys(json.loads(path.read_text(encoding="utf-8")), CONFIG_KEYS)
        before: dict[str, Any] = dict(_flatten(stored))
    except (OSError, ValueError, AttributeError) as error:
        raise TrainingError(f"{path} is no config of a run: {error}") from error
    now = dict(_flatten(config))
    for field in sorted((before.keys() | now.keys()) - {"out", "report_to"}):
        if before.get(field) != now.get(field):
            raise TrainingError(
                f"the run in {folder} has {field} {before.get(field)!r}, not {now.get(field)!r}: "
                "continue with its own config, delete it, or choose another folder"
            )


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08}"


def _find_fault(path: Path) -> str:
    """Say why a folder is no complete checkpoint; "" if it is one."""
    try:
        recorded = read_json_object(path / COMPLETE_FILE)
        hashes = _hash_files(path)
    except OSError as error:
        name = Path(error.filename or COMPLETE_FILE).name
        return f"{name} cannot be read ({error.strerror})"
    except ValueError as error:
        return f"{COMPLETE_FILE} is no table of files: {error}"
    names = hashes | recorded
    changed = sorted(name for name in names if hashes.get(name) != recorded.get(name))
    if not changed:
        return ""
    return f"{', '.join(changed)} changed since it was written, by {COMPLETE_FILE}"


def _hash_files(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in sorted(folder.iterdir()):
        if path.name != COMPLETE_FILE:
            require_regular(path)
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return hashes


def _describe_last(folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        last = latest_checkpoint(folder)
    if last is None:
        return "there is no earlier one. Make room and start again"
    return f"the one of step {last.step} is intact. Make room and start again to continue from it"
