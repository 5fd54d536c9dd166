"""Adapters that describe themselves: adapter.json, hashes of weights, and compatibility checks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec.data.files import (
    HASH_KEY,
    atomic_write_text,
    file_hash,
    require_values_hash,
    with_values_hash,
)
from llmrec.data.json_values import UNREADABLE, read_json_object
from llmrec.data.versions import FIRST_VERSION, unknown_keys
from llmrec.errors import ModelLoadError
from llmrec.language.folder_checks import MAX_INTEGER

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ADAPTER_FILE = "adapter.json"
LORA_FILES = ("adapter_config.json", "adapter_model.safetensors")  # as peft calls them
CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE = "readout.safetensors", "titles.safetensors"
SEEN_METRICS = "on windows it learned from"  # group of metrics that overstate its quality
# What scales the product of LoRA's two matrices, and so belongs to the weights.
_SCALING_KEYS = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
_FIELD_TYPES: dict[str, type[Any]] = {
    "seed": int,
    "merged": bool,
    "labels": list,
    "categories": list,
}
_FIELD_TYPES |= dict.fromkeys(("config", "metrics", "versions", "files"), dict)


@dataclass(frozen=True)
class AdapterMetadata:
    """The fields of an adapter's adapter.json.

    Attributes
    ----------
    base_model, base_fingerprint
        Name and `base_fingerprint` of the model that the adapter goes into, or is merged into.
    labels, categories
        (n_categories,) the labels of prompts and lines, and the catalog's names.
    prompt
        Prompt version: the name of a template.
    dataset, data_fingerprint, period
        The log it was trained on, and the length of its periods.
    cutoff
        Nothing at or after this time was used.
    seed, config
        With these the training can be repeated.
    metrics
        Name to a number or to {"value", "low", "high"}; groups of them may be nested.
    versions
        Of the libraries that trained it.
    merged
        Whether the folder is a whole model with the adapter in its weights.
    base_hash
        `base_hash` of the model that the adapter goes into; "" where it was not computed.
    files
        The other files of the folder that are loaded, with the SHA-256 of each; adapters of before
        version 0.5 have none.
    """

    base_model: str
    base_fingerprint: str
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    prompt: str
    dataset: str
    data_fingerprint: str
    cutoff: str
    period: str
    seed: int
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    merged: bool = False
    base_hash: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write adapter.json, atomically, with a hash of itself and of each file beside it."""
        hashes = {path.name: file_hash(path) for path in _loaded_files(folder)}
        values = with_values_hash(asdict(replace(self, files=hashes)))
        atomic_write_text(folder / ADAPTER_FILE, json.dumps(values, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True) -> AdapterMetadata:
        """Read a folder's adapter.json; ModelLoadError names the file and what is wrong with it.

        ``verify``: whether to refuse one that is not as it was saved.
        """
        path = folder / ADAPTER_FILE
        try:
            saved = read_json_object(path)
            values = {name: value for name, value in saved.items() if name != HASH_KEY}
            _check_fields(values)
            if verify and (HASH_KEY in saved or values.get("files")):
                require_values_hash(saved)
        except UNREADABLE as error:
            raise ModelLoadError(
                f"{path} does not describe an adapter: {error}; give a folder that "
                "finetune/lora.py or finetune/merge_adapter.py wrote"
            ) from error
        texts = {name: tuple(values[name]) for name in ("labels", "categories")}
        return cls(**values | texts)

    @classmethod
    def load_if_present(cls, folder: Path, *, verify: bool = True) -> AdapterMetadata | None:
        """Read a folder's adapter.json as `load` does; None if it has none."""
        return cls.load(folder, verify=verify) if (folder / ADAPTER_FILE).is_file() else None

    def require_unchanged(self, folder: Path) -> None:
        """Raise ModelLoadError if a file that is loaded is not the one that was saved with it."""
        found = {path.name: path for path in _loaded_files(folder)} if self.files else {}
        for name in sorted({*self.files, *found}):
            if name not in found or not found[name].is_file():
                what = "is missing"
            elif file_hash(found[name]) != self.files.get(name):
                what = "is not the file that was saved"
            else:
                continue
            raise ModelLoadError(
                f"{folder / name} {what} with this adapter: copy its whole folder again"
            )

    def require_compatible(self, base_fingerprint: str, labels: Sequence[str], prompt: str) -> None:
        """Check that the adapter was made for this base model, label set and prompt version.

        Raises
        ------
        ModelLoadError
            With all differences, and the way out of each.
        """
        differences = []
        if base_fingerprint != self.base_fingerprint:
            differences.append(
                f"it was made for {self.base_model!r} ({self.base_fingerprint}) and this is "
                f"another model ({base_fingerprint}): load that one"
            )
        if difference := _label_difference(self.labels, labels):
            differences.append(
                f"{difference}: use it on {self.dataset!r}, or train one for this log with "
                "finetune/lora.py"
            )
        if prompt != self.prompt:
            differences.append(
                f"it was trained on prompts of version {self.prompt!r}, not {prompt!r}: set "
                f"template={self.prompt!r}"
            )
        if differences:
            raise ModelLoadError(f"the adapter does not fit: {'; '.join(differences)}")


def verified_metadata(folder: Path, verify: bool = True) -> AdapterMetadata | None:
    """Read the adapter.json of an adapter or a merged model; None if the folder has none.

    Raises
    ------
    ModelLoadError
        If it, or with ``verify`` a file beside it, is not as it was saved.
    """
    metadata = AdapterMetadata.load_if_present(folder, verify=verify)
    if metadata is not None and verify:
        metadata.require_unchanged(folder)
    return metadata


def adapter_hash(folder: Path) -> str:
    """Hash everything that an adapter's output depends on: 16 hexadecimal digits.

    That is its weights and their scaling, base model, labels and prompt version; when, how and how
    well it was trained is not in it.

    Raises
    ------
    ModelLoadError
        If the folder holds no weights or no adapter.json.
    """
    metadata = AdapterMetadata.load(folder, verify=False)  # who loads it verifies it
    content: list[Any] = [metadata.base_fingerprint, metadata.labels, metadata.prompt]
    weights = sorted(folder.glob("*.safetensors"))
    if not any(folder.glob("*model*.safetensors")):  # a category head alone is not enough
        raise ModelLoadError(f"there are no weights in {folder}: give a whole adapter's folder")
    if not metadata.merged:
        content += _load_scaling(folder / "adapter_config.json")
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=8)
    for path in weights:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Hash a model's config and 16 numbers of each weight tensor: 16 hexadecimal digits."""
    config = model.config.to_dict()
    ignored = ("_", "tr", "dtype", "torch_dtype", "quantization")
    essential = {k: v for k, v in sorted(config.items()) if not k.startswith(ignored)}
    digest = hashlib.sha256(json.dumps(essential, default=str).encode())
    for key, tensor in sorted(model.state_dict().items()):
        sample = tensor.flatten()[:: max(1, tensor.numel() // 16)][:16]
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def base_fingerprint(model: PreTrainedModel) -> str:
    """Hash what an adapter depends on in its base model: 16 hexadecimal digits.

    Sizes, and numbers of the embeddings and of all norms in bfloat16: the same in any precision,
    quantized or not, and with an adapter inside.
    """
    config, table = model.config, model.get_input_embeddings().weight
    layers = getattr(config, "num_hidden_layers", None)
    digest = hashlib.sha256(f"{config.model_type}{layers}{tuple(table.shape)}".encode())
    norms = {name: value for name, value in model.named_parameters() if "norm.weight" in name}
    for _, value in sorted({"": table, **norms}.items()):
        numbers = value.detach().flatten()
        sample = numbers[:: max(1, numbers.numel() // 1024)][:1024]
        digest.update(sample.bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def base_hash(model: PreTrainedModel) -> str:
    """SHA-256 of all weights of a base model in bfloat16: the same in float32 and in bfloat16.

    Without an adapter inside, and not quantized: "" if the weights are in other numbers.
    """
    import torch

    if getattr(model, "is_quantized", False) or model.dtype not in (torch.float32, torch.bfloat16):
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.bfloat16().cpu().contiguous().view(torch.int16).numpy())
    return digest.hexdigest()


def require_finite(model: PreTrainedModel, name: str) -> None:
    """Raise ModelLoadError if a parameter holds a number that is not finite."""
    for key, values in model.named_parameters():
        has_numbers = values.is_floating_point() and values.numel() and not values.is_meta
        # The smallest and the largest are found without a copy.
        if has_numbers and not all(map(math.isfinite, values.detach().aminmax())):
            raise ModelLoadError(f"{name}: a number of {key} is not finite; get its files again")


def merge_adapter_layers(model: PreTrainedModel) -> None:
    """Add the matrices of LoRA to the weights beside them, which saves the passes through them.

    That is done in place, and only where weights are float32: others would be rounded.
    """
    for layer in model.modules():
        if hasattr(layer, "lora_A") and str(layer.weight.dtype) == "torch.float32":
            layer.merge()


def _loaded_files(folder: Path) -> list[Path]:
    """List the files of a folder, but for adapter.json, that are read when it is loaded."""
    found = (*folder.glob("*.json"), *folder.glob("*.safetensors"))
    return sorted(path for path in found if path.name != ADAPTER_FILE)


def _check_fields(values: Mapping[str, Any]) -> None:
    """Raise ValueError if these are not the fields of an adapter.json."""
    is_required = {
        one.name: one.default is MISSING and one.default_factory is MISSING
        for one in fields(AdapterMetadata)
    }
    version = FIRST_VERSION
    if isinstance(values.get("versions"), dict):
        version = str(values["versions"].get("llmrec", version))
    if unknown := unknown_keys(values, is_required, version):
        raise ValueError(unknown)
    if missing := [name for name, needed in is_required.items() if needed and name not in values]:
        raise ValueError(f"field {missing[0]!r} is missing")
    for name, value in values.items():
        expected = _FIELD_TYPES.get(name, str)
        if type(value) is not expected:
            raise ValueError(f"field {name!r} is {str(value)[:40]!r}, not a {expected.__name__}")
        if expected is list and not all(isinstance(text, str) for text in value):
            raise ValueError(f"field {name!r} holds something that is no text")
    budget = values["config"].get("budget", 1)
    if type(budget) is not int or not 1 <= budget <= MAX_INTEGER:
        raise ValueError(f"config.budget is {str(budget)[:40]!r}, no number of positions")
    if len(set(values["labels"])) != len(values["categories"]):
        raise ValueError("each of its categories needs a label of its own")


def _label_difference(trained: Sequence[str], given: Sequence[str]) -> str:
    """Describe how the given labels differ from those trained with; "" if they do not."""
    if tuple(trained) == tuple(given):
        return ""
    missing = _join_first([label for label in trained if label not in set(given)])
    extra = _join_first([label for label in given if label not in set(trained)])
    if missing or extra:
        parts = (missing and f"missing here: {missing}", extra and f"new here: {extra}")
        return f"its labels are different ({', '.join(part for part in parts if part)})"
    place, label = next(
        (i, own) for i, (own, other) in enumerate(zip(trained, given, strict=True)) if own != other
    )
    return f"its labels are in another order: {label!r} is not number {place} here"


def _join_first(labels: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(map(repr, labels[:limit]))
    return f"{shown} and {len(labels) - limit} more" if len(labels) > limit else shown


def _load_scaling(path: Path) -> list[Any]:
    try:
        config = read_json_object(path)
        return [config.get(name) for name in _SCALING_KEYS]
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} is no adapter's config: {error}") from error
