"""Loading and saving of models and adapters; transformers and peft are imported here only.

A name is ``smollm2-135m`` (the embedded model), a local folder, or a hub id. What cannot be loaded
completely is a `ModelLoadError`: no missing weight is initialized at random.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import ZipFile

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from llmrec.data import embedded
from llmrec.errors import MissingExtraError, ModelLoadError, TrainingError

if TYPE_CHECKING:
    from peft import PeftModel


# peft imports bitsandbytes, which on some processors logs a kernel that nobody here needs.
getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
DEFAULT_MODEL = "smollm2-135m"
DEFAULT_ENCODER = "all-minilm-l6-v2"
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["4bit", "8bit"]
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def load_pretrained(
    name: str,
    *,
    adapter: Path | None,
    device: str,
    dtype: Precision,
    quantize: Quantization | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model in evaluation mode, its adapter inside, and its tokenizer.

    Raises
    ------
    ModelLoadError
        If anything is missing, damaged, of another kind than a decoder or an encoder-decoder, or
        if the adapter was made for another base model.
    MissingExtraError
        If ``quantize`` is given and bitsandbytes is not installed.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    source = _resolve_source(name)
    with _wrap_errors(f"model {name!r}", "give smollm2-135m, a complete model folder or a hub id"):
        config = AutoConfig.from_pretrained(source)
        loader = _choose_loader(config)
        precision = _choose_precision(dtype, device, config)
        tokenizer = _load_tokenizer(source)
        model, report = loader.from_pretrained(
            source,
            dtype=precision,
            device_map={"": device},
            quantization_config=_make_quantization(quantize, precision),
            use_safetensors=True,
            output_loading_info=True,
        )
        if report["missing_keys"]:
            absent = sorted(report["missing_keys"])
            raise ValueError(f"{len(absent)} weights are not in the file, among them {absent[0]!r}")
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            raise ValueError(
                f"its tokenizer has {len(tokenizer)} tokens, more than it has embeddings"
            )
    if adapter is not None:
        model = _load_adapter(model, adapter)
    return model.eval(), tokenizer


def load_encoder(name: str, *, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder of texts in evaluation mode, float32, and its tokenizer.

    Raises
    ------
    ModelLoadError
        If anything is missing or damaged, or the model is no encoder.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == DEFAULT_ENCODER:
        source = str(embedded.cached_folder(name, embedded.encoder_archive(name), _unzip_encoder))
    else:
        folder = Path(name).expanduser()
        source = str(folder) if folder.is_dir() else name
    with _wrap_errors(
        f"encoder {name!r}", f"give {DEFAULT_ENCODER}, a complete folder or a hub id"
    ):
        config = AutoConfig.from_pretrained(source)
        if config.is_encoder_decoder or getattr(config, "is_decoder", False):
            raise ValueError(f"its kind is {config.model_type!r}, which is no encoder")
        model, report = AutoModel.from_pretrained(
            source,
            dtype=torch.float32,
            device_map={"": device},
            use_safetensors=True,
            output_loading_info=True,
        )
        if absent := sorted(key for key in report["missing_keys"] if "pooler" not in key):
            raise ValueError(f"{len(absent)} weights are not in the file, among them {absent[0]!r}")
        return model.eval(), _load_tokenizer(source)


def _unzip_encoder(folder: Path) -> None:
    """Unzip the files of the embedded encoder that transformers reads."""
    with ZipFile(embedded.encoder_archive(DEFAULT_ENCODER)) as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(archive.read(name))


def _resolve_source(name: str) -> str:
    if name == DEFAULT_MODEL:
        return str(embedded.cached_folder(name, embedded.gguf_file(name), _convert_gguf))
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def _convert_gguf(folder: Path) -> None:
    """Convert the embedded GGUF file to a folder that loads in seconds."""
    gguf = embedded.gguf_file(DEFAULT_MODEL)
    with _wrap_errors(f"embedded model {gguf}", "install its distribution again"):
        source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(**source)
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # transformers does not save weights from GGUF as long as their config is quantized.
    config = quantized.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _choose_loader(config: PreTrainedConfig) -> Any:
    """Choose the class that loads a model; an encoder alone is a ValueError."""
    kinds, loader = (
        (modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, AutoModelForSeq2SeqLM)
        if config.is_encoder_decoder
        else (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM)
    )
    architecture = (config.architectures or ["none"])[0]
    if architecture not in kinds.values():
        raise ValueError(
            f"its architecture is {architecture!r}; a decoder with a language-model head or an "
            "encoder-decoder like T5 is needed"
        )
    return loader


def _choose_precision(dtype: Precision, device: str, config: PreTrainedConfig) -> torch.dtype:
    if dtype == "float16" and config.model_type in ("t5", "mt5", "umt5", "longt5"):
        raise ValueError("T5 overflows in float16: use dtype='bfloat16' or 'float32'")
    if dtype == "auto":
        on_gpu = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    precision: torch.dtype = getattr(torch, dtype)
    return precision


def _make_quantization(
    quantize: Quantization | None, precision: torch.dtype
) -> BitsAndBytesConfig | None:
    if quantize is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"quantize={quantize!r} needs bitsandbytes: pip install 'llmrec[quantized]'"
        )
    if quantize == "8bit":
        # A threshold above 0 finds outliers in the whole batch: a prompt's answer would then depend
        # on the others.
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=precision
    )


def _load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    folder = Path(source)
    # Without its vocabulary file a T5 tokenizer is empty instead of an error.
    if folder.is_dir() and not any((folder / file).exists() for file in _VOCABULARIES):
        raise ValueError(f"there is no tokenizer in it (none of {', '.join(_VOCABULARIES)})")
    tokenizer = AutoTokenizer.from_pretrained(source)
    if not tokenizer.is_fast:
        raise ValueError(f"its tokenizer ({type(tokenizer).__name__}) has no tokenizers backend")
    return tokenizer


def _load_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    weights = adapter / "adapter_model.safetensors"
    with _wrap_errors(
        f"adapter {str(adapter)!r}", "give the folder of one made for this base model"
    ):
        if not weights.is_file():
            raise ValueError(f"there is no {weights.name} in it")
        if PeftConfig.from_pretrained(str(adapter)).is_prompt_learning:
            raise ValueError("it is a soft prompt; an adapter inside the layers (LoRA) is needed")
        adapted = PeftModel.from_pretrained(model, str(adapter))
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        with safe_open(weights, framework="pt") as file:
            found = set(file.keys())
        unexpected = expected - found or {key for key in found - expected if ".lora_" in key}
        if unexpected:
            raise ValueError(f"its layers are not this base model's, such as {min(unexpected)!r}")
    # The adapter's layers are inside the base model, so the wrapper is not needed any more.
    base: PreTrainedModel = adapted.get_base_model()
    return base


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
    layers: Sequence[int] | None = None,
) -> PeftModel:
    """Add a new LoRA adapter to a model's layers; nothing else of it is trained from then on.

    Returns
    -------
    PeftModel
        The wrapper for `save_adapter`; the model itself now holds the adapter.

    Raises
    ------
    TrainingError
        If the targets match no layer.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model)
    seq2seq = model.config.is_encoder_decoder
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        layers_to_transform=None if layers is None else list(layers),
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(model, config)
    except ValueError as cause:
        names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        raise TrainingError(
            f"LoRA's targets {sorted(targets)} (layers {layers or 'all'}) match nothing in "
            f"{type(model).__name__}, whose modules are called {sorted(names)}"
        ) from cause


def add_lora_to_layers(adapted: PeftModel, layers: Sequence[int], *, rank: int, seed: int) -> None:
    """Add LoRA to more layers of an adapted model, of another rank and with the same scaling.

    ``layers`` must not have it already. Like peft's own, new matrices are float32 whatever the
    precision of the base model.
    """
    (config,) = adapted.peft_config.values()
    earlier = list(config.layers_to_transform)
    pattern = f"layers\\.({'|'.join(map(str, layers))})\\..*"
    config.rank_pattern = {pattern: rank}
    config.alpha_pattern = {pattern: config.lora_alpha * rank / config.r}
    config.layers_to_transform = list(layers)
    torch.manual_seed(seed)
    existing = set(dict(adapted.named_parameters()))
    adapted.base_model.inject_adapter(adapted.get_base_model(), "default")
    for name, values in adapted.named_parameters():
        if name not in existing and ".lora_" in name:
            values.data = values.data.float()
    config.layers_to_transform = sorted({*earlier, *layers})


def save_adapter(adapted: PeftModel, folder: Path, base_model: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json, in the precision of the weights.

    ``base_model`` is the name of the base model, not its folder on this machine.
    """
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = base_model
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


@contextmanager
def _wrap_errors(what: str, way_out: str) -> Iterator[None]:
    """Silence the libraries, and turn their errors into one that names the way out."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft uses a name that transformers is about to drop.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except (ModelLoadError, MissingExtraError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as cause:
        reason = " ".join(str(cause).split())[:300]
        raise ModelLoadError(f"{what} cannot be loaded: {reason}; {way_out}") from cause
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
