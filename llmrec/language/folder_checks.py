"""Checks of model folders before a library sees them.

No code that comes with a model is run or asked about, no pattern is matched that could take hours,
and no size is believed that the weights beside it do not have: a config of a few bytes must not
fill the memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from llmrec.data.json_values import list_entries, read_json_object
from llmrec.errors import ModelLoadError

IMAGE_CONFIG_FILES = ("preprocessor_config.json", "processor_config.json")
CONFIG_FILES = (
    *("config.json", "tokenizer_config.json", "generation_config.json"),
    *IMAGE_CONFIG_FILES,
)
ADAPTER_CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
VOCABULARY_FILES = ("tokenizer.json", "vocab*", "merges.txt", "*.model", "*token*.json", "*.jinja")
MAX_LAYERS = 512  # the largest open models have about 130
MAX_COUNT = 65_536  # heads, experts, labels, added tokens
MAX_INTEGER = 2**24  # any other size; some models take ten million positions
MAX_IMAGE_SIDE = 4096  # pixels of what images are resized to
MAX_VOCABULARY_BYTES = 2**26
MAX_INDEX_BYTES = 2**24  # of names of weights
MAX_PATTERNS = 250
MAX_PATTERN_LETTERS = 32_000
DAMAGED = "the file is damaged or not meant well; get it again from its source"
# A config may describe values that are no weights (masks, tables of positions), and a table twice
# that is stored once; quantized weights store two values in one.
_VALUES_PER_STORED, _SPARE_VALUES = 4, 2**26
_NO_CODE = (
    "no code of a model is run: give a model whose architecture transformers itself has, or a copy "
    "without the key"
)
_REDIRECTING = {
    "auto_map": "it names code that comes with the model",
    "custom_pipelines": "it names code that comes with the model",
    "custom_generate": "it names code that comes with the model",
    "configuration_files": "it names another config to be read in its place",
    "transformers_weights": "it names other weights to be read",
}
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_BUILT_IN = (None, "eager", "sdpa", "batched_mm", "grouped_mm")
# Not tokenizers that open others in subfolders, which nobody has checked.
_TOKENIZER = re.compile(r"(?!Auto|Rag)\w*(Tokenizer(Fast)?|Backend)", re.ASCII)
_IMAGE_PROCESSOR = re.compile(r"(?!Auto)\w*(ImageProcessor(Fast|Pil)?|FeatureExtractor)", re.ASCII)
_IMAGE_SIDES = ("height", "width", "shortest_edge", "longest_edge", "size", "crop_size")
_LAYERS = re.compile(r"((n|num)_(hidden_|encoder_|decoder_)?|encoder_|decoder_)layers?")
_COUNTS = re.compile(r"(layers?|heads?|experts|labels|blocks|stages|depths?|groups|codebooks)$")
_SIZES = re.compile(
    r"(hidden|intermediate|vocab|embedding)_size|d_model|d_ff|d_kv|n_embd|n_inner|ffn_dim|head_dim"
    r"|n_heads?|num_(attention_|key_value_)?heads|(encoder|decoder)_attention_heads"
    rf"|max_position_embeddings|n_positions|n_ctx|{_LAYERS.pattern}"
)
_UNBOUNDED = re.compile(r"(_ids?|_idx|_token|seed|theta|(^|_)base|model_max_length)$")
_TOKEN_COUNTS = ("extra_ids", "num_madeup_words", "offset")
# No repetition within another: names, one group of alternatives, and one ".*" at an end.
_WORD = r"(?:[\w.]|\\\.)*"
_BODY = rf"{_WORD}(?:\((?:\w+\|)*\w+\){_WORD})?"
_PATTERN = re.compile(rf"\^?(?:(?:\.\*)?{_BODY}|{_BODY}\.\*)\$?", re.ASCII)


@dataclass(frozen=True)
class StoredWeights:
    """What the headers of a folder's weights say: numbers of tensors and of their values."""

    n_tensors: int
    n_values: int


def check_model_folder(folder: Path) -> None:
    """Check a model's folder before it is loaded: its configs and the sizes of its other files.

    Raises
    ------
    ModelLoadError
        If a config names code, another file or a size that cannot be; it names file and key.
    ValueError
        If there are no weights.
    """
    if (folder / ADAPTER_CONFIG_FILE).exists():
        raise ModelLoadError(
            f"{folder / ADAPTER_CONFIG_FILE} makes this an adapter's folder, with a base model of "
            "its own: give the base model's name, and this folder as adapter="
        )
    for pattern in VOCABULARY_FILES:
        for path in folder.glob(pattern):
            if (size := path.stat().st_size) > MAX_VOCABULARY_BYTES:
                most = f"{MAX_VOCABULARY_BYTES:,} are the most"
                raise ModelLoadError(f"{path} has {size:,} bytes, and {most}: {DAMAGED}")
    stored = _read_stored(folder)
    for name in CONFIG_FILES:
        if not (path := folder / name).is_file():
            continue
        for key, value in list_entries(values := read_config(path)):
            check_code(path, key, value)
            if name == "config.json":
                _check_size(path, key, value, stored)
            elif last_part(key) in _TOKEN_COUNTS:
                check_integer(path, key, value, MAX_COUNT)
            elif key == "model_max_length" and not (type(value) in (int, float) and value >= 1):
                raise refusal(path, key, value, "it should be a number of tokens", DAMAGED)
        if name == "generation_config.json":
            _check_token_ids(path, values)


def check_image_processor(folder: Path) -> None:
    """Check how images are prepared for a model, in a folder that is checked already.

    Raises
    ------
    ModelLoadError
        If a config asks for images of a size that cannot be, or for a class that is no image
        processor; it names file and key.
    ValueError
        If there is no such config.
    """
    paths = [folder / name for name in IMAGE_CONFIG_FILES if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"there is no {IMAGE_CONFIG_FILES[0]} in it, which prepares images")
    for path in paths:
        for key, value in list_entries(read_config(path)):
            name = last_part(key)
            if name in _IMAGE_SIDES and isinstance(value, int | float):
                check_integer(path, key, value, MAX_IMAGE_SIDE, least=1)
            is_class = name in ("image_processor_type", "feature_extractor_type")
            if is_class and not _IMAGE_PROCESSOR.fullmatch(str(value)):
                raise refusal(
                    path, key, value, "it is no image processor of transformers", _NO_CODE
                )


def check_described_values(folder: Path, config: Mapping[str, Any], n_values: int) -> None:
    """Check that a config describes no more values than the weights can hold.

    Parameters
    ----------
    config
        The values of config.json.
    n_values
        Parameters and buffers of the model that it describes.

    Raises
    ------
    ModelLoadError
        If these are more than four times the values of the weights, and 2^26 more.
    """
    stored = _read_stored(folder)
    if n_values <= _VALUES_PER_STORED * stored.n_values + _SPARE_VALUES:
        return
    sizes = [
        (value, key)
        for key, value in list_entries(config)
        if type(value) is int and not _UNBOUNDED.search(last_part(key))
    ]
    value, key = max(sizes, default=(0, "model_type"))
    raise ModelLoadError(
        f"{folder / 'config.json'} describes a model of {n_values:,} values (its largest size is "
        f"{_printable(key)} {value}), and the weights hold {stored.n_values:,}: {DAMAGED}"
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read a config; ModelLoadError names the file and what is wrong with it."""
    try:
        return read_json_object(path)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be loaded: {error}; {DAMAGED}") from error


def _read_stored(folder: Path) -> StoredWeights:
    counts = []
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        counts += [n for shape in shapes if (n := math.prod(shape))]
    return StoredWeights(len(counts), sum(counts))


def _weight_files(folder: Path) -> list[Path]:
    """List the files that transformers loads weights from: one, or those that an index names."""
    path = folder / WEIGHTS_INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not path.is_file():
        raise ValueError(f"{folder} holds no weights: no file named {WEIGHTS_FILE} or {path.name}")
    try:
        named = read_json_object(path, MAX_INDEX_BYTES).get("weight_map")
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be loaded: {error}; {DAMAGED}") from error
    if not isinstance(named, dict) or not named:
        reason = "it should name the file of each tensor"
        raise refusal(path, "weight_map", named, reason, DAMAGED)
    for tensor, file in named.items():
        plain = isinstance(file, str) and Path(file).name == file and "\\" not in file
        if not plain or not file.endswith(".safetensors"):
            reason = "it should be a safetensors file beside this one"
            raise refusal(path, f"weight_map.{tensor}", file, reason, DAMAGED)
    return [folder / file for file in sorted(set(named.values()))]


def check_code(path: Path, key: str, value: Any) -> None:
    """Refuse a key by which transformers or peft would run code or read other files."""
    name = last_part(key)
    if name in _REDIRECTING and value:
        raise refusal(path, key, value, _REDIRECTING[name], _NO_CODE)
    if _IMPLEMENTATION.fullmatch(name) and value not in _BUILT_IN:
        raise refusal(path, key, value, "it would be fetched from a hub and run", _NO_CODE)
    if name == "tokenizer_class" and value and not _TOKENIZER.fullmatch(str(value)):
        raise refusal(path, key, value, "it is no plain tokenizer of transformers", _NO_CODE)
    if name == "auto_mapping" and value:
        library = value.get("parent_library") if isinstance(value, dict) else value
        if not str(library).startswith("transformers.models."):
            raise refusal(path, key, value, "it names a module to be imported", _NO_CODE)
    if name == "quantization_config" and value:
        method = value.get("quant_method") if isinstance(value, dict) else value
        if method not in (None, "bitsandbytes"):
            reason = "of quantized weights only those of bitsandbytes are loaded"
            raise refusal(path, key, value, reason, "give the weights before they were quantized")
    if name in ("llm_int8_skip_modules", "modules_to_not_convert"):
        check_patterns(path, key, value, 2 * MAX_PATTERNS)


def _check_size(path: Path, key: str, value: Any, stored: StoredWeights) -> None:
    """Refuse a number of config.json that no model has, or more layers than there are tensors."""
    name = last_part(key)
    most = MAX_COUNT if _COUNTS.search(name) else MAX_INTEGER
    if _LAYERS.fullmatch(name):
        most = min(MAX_LAYERS, stored.n_tensors)
    for number in value if isinstance(value, list) else [value]:
        if _SIZES.fullmatch(name) and number is not None:
            check_integer(path, key, number, most)
        elif type(number) is int and abs(number) > most and not _UNBOUNDED.search(name):
            raise refusal(path, key, value, f"{most:,} is the most", DAMAGED)


def _check_token_ids(path: Path, values: Mapping[str, Any]) -> None:
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        value = values.get(key)
        for number in value if isinstance(value, list) else [value]:
            if number is not None:
                check_integer(path, key, number, MAX_INTEGER, least=-1)


def check_patterns(path: Path, key: str, value: Any, most: int = MAX_PATTERNS) -> None:
    """Refuse patterns that take long to match: libraries put them into regular expressions."""
    patterns = [value] if isinstance(value, str) else value or []
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise refusal(path, key, value, "it should hold names or patterns", DAMAGED)
    if len(patterns) > most or sum(map(len, patterns)) > MAX_PATTERN_LETTERS:
        reason = f"{most} of {MAX_PATTERN_LETTERS:,} letters together are the most"
        raise refusal(path, key, value, reason, DAMAGED)
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            reason = "a pattern holds names, dots, one group (a|b) and one .* at an end, no more"
            raise refusal(path, key, pattern, reason, "write out the names of the layers")


def check_integer(path: Path, key: str, value: Any, most: int, least: int = 0) -> None:
    """Raise ModelLoadError unless a value is a whole number between two bounds."""
    if type(value) is not int or not least <= value <= most:
        reason = f"it should be a whole number from {least} to {most:,}"
        raise refusal(path, key, value, reason, DAMAGED)


def refusal(path: Path, key: str, value: Any, reason: str, way_out: str) -> ModelLoadError:
    """Make the error that names file, key, value, reason and way out."""
    shown = repr(value)
    shown = f"{shown[:60]}..." if len(shown) > 63 else shown
    return ModelLoadError(f"{path}: {_printable(key)} is {shown}: {reason}; {way_out}")


def _printable(key: str) -> str:
    """Give a key as it may be shown: what it holds is somebody else's."""
    end = key[-120:]
    return end if end.isprintable() else repr(end)


def last_part(key: str) -> str:
    """Give a dotted key's last part."""
    return key.rpartition(".")[2]
