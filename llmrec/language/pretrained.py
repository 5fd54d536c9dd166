"""Loading of models and adapters; nothing but this and training imports transformers or peft.

A name is ``smollm2-135m`` (the embedded model), ``gemma-3-270m`` (see `llmrec.data.gemma`), a local
folder, or a hub id. What cannot be loaded completely is a `ModelLoadError`: no missing weight is
initialized at random, and no code of a model is run.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from llmrec.data import embedded, gemma
from llmrec.errors import LlmrecError, MissingExtraError, ModelLoadError
from llmrec.language.adapter_checks import ADAPTER_WEIGHTS_FILE, check_adapter_folder
from llmrec.language.adapters import AdapterMetadata, base_hash, require_finite
from llmrec.language.backends import Precision, Quantization, torch_dtype
from llmrec.language.folder_checks import (
    ADAPTER_CONFIG_FILE,
    CONFIG_FILES,
    VOCABULARY_FILES,
    WEIGHTS_INDEX_FILE,
    check_described_values,
    check_image_processor,
    check_model_folder,
)

# peft imports bitsandbytes, which on some processors logs a kernel that nobody here needs.
getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
DEFAULT_MODEL = "smollm2-135m"
DEFAULT_ENCODER = "all-minilm-l6-v2"
# What is fetched of a hub id, once; what else is there cannot be loaded.
_FETCHED_FILES = [
    *(*CONFIG_FILES, ADAPTER_CONFIG_FILE, WEIGHTS_INDEX_FILE, *VOCABULARY_FILES),
    "model*.safetensors",
]
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def load_pretrained(
    name: str,
    adapter: Path | None,
    *,
    device: str,
    dtype: Precision,
    quantize: Quantization | None,
    about: AdapterMetadata | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model in evaluation mode, its adapter inside, and its tokenizer.

    ``about`` describes the adapter, if its base model is to be the very one of its training.

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
    if adapter is not None:
        with _wrap_adapter_errors(adapter):
            check_adapter_folder(adapter)
    source = _model_source(name)
    with _wrap_errors(f"model {name!r}", "give smollm2-135m, a complete model folder or a hub id"):
        folder = _model_folder(source)
        config = _load_config(folder)
        loader = _choose_loader(config)
        _check_described_size(folder, config, loader)
        precision = torch_dtype(dtype, device, config.model_type)
        tokenizer = _load_tokenizer(folder)
        quantization = _make_quantization(quantize, precision)
        options = {"dtype": precision, "quantization_config": quantization}
        model, absent = _load_weights(loader, folder, config, device, **options)
        if absent:
            raise ValueError(f"{len(absent)} weights are not in the file, among them {absent[0]!r}")
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            raise ValueError(
                f"its tokenizer has {len(tokenizer)} tokens, more than it has embeddings"
            )
    found = base_hash(model) if about and about.base_hash else ""
    if adapter is not None:
        model = _load_adapter(model, adapter)
    if about and found and found != about.base_hash:
        raise ModelLoadError(
            f"adapter {str(adapter)!r} does not fit: it was made for {about.base_model!r} "
            f"({about.base_hash[:16]}) and this is another model ({found[:16]}): load that one"
        )
    require_finite(model, name if adapter is None else f"{name} with adapter {adapter}")
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
    source = name
    if name == DEFAULT_ENCODER:
        path = embedded.encoder_archive(name)
        source = str(embedded.cached_folder(name, path, partial(embedded.unzip_encoder, path)))
    with _wrap_errors(
        f"encoder {name!r}", f"give {DEFAULT_ENCODER}, a complete folder or a hub id"
    ):
        folder = _model_folder(source)
        config = _load_config(folder)
        if config.is_encoder_decoder or getattr(config, "is_decoder", False):
            raise ValueError(f"its kind is {config.model_type!r}, which is no encoder")
        _check_described_size(folder, config, AutoModel)
        model, absent = _load_weights(AutoModel, folder, config, device, dtype=torch.float32)
        if absent := [key for key in absent if "pooler" not in key]:
            raise ValueError(f"{len(absent)} weights are not in the file, among them {absent[0]!r}")
        return model.eval(), _load_tokenizer(folder)


def load_image_encoder(name: str, *, device: str) -> tuple[PreTrainedModel, Any]:
    """Load a model of images in evaluation mode, float32, and its image processor.

    A pooling layer whose weights are not in the file is left out. Images are prepared by Pillow,
    so that no other package that is installed changes a vector.

    Raises
    ------
    ModelLoadError
        If anything is missing or damaged, or nothing prepares images for the model.
    MissingExtraError
        If Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise MissingExtraError("images need Pillow: pip install 'llmrec[images]'")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with _wrap_errors(f"image encoder {name!r}", "give a complete folder or a hub id of one"):
        folder = _model_folder(name)
        config = _load_config(folder)
        check_image_processor(folder)
        _check_described_size(folder, config, AutoModel)
        processor = AutoImageProcessor.from_pretrained(
            folder, trust_remote_code=False, backend="pil"
        )
        model, absent = _load_weights(AutoModel, folder, config, device, dtype=torch.float32)
        if others := [key for key in absent if not key.startswith("pooler.")]:
            raise ValueError(f"{len(others)} weights are not in the file, among them {others[0]!r}")
        if absent:
            model.pooler = None
        return model.eval(), processor


def _model_source(name: str) -> str:
    """Give the folder that a GGUF file was converted to, once; any other name as it is."""
    if name == DEFAULT_MODEL:
        gguf = embedded.gguf_file(name)
        return str(embedded.cached_folder(name, gguf, partial(_convert_gguf, gguf)))
    if name == embedded.GEMMA.name:
        return str(embedded.cached_folder(name, gemma.gemma_parts(), _convert_gemma))
    return name


def _model_folder(source: str) -> Path:
    """Give a model's folder; that of a hub id is fetched: what is checked is what is loaded."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    return Path(snapshot_download(source, allow_patterns=_FETCHED_FILES))


def _load_config(folder: Path) -> PreTrainedConfig:
    """Read a model's config once nothing in its folder is code or of an impossible size."""
    check_model_folder(folder)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _check_described_size(folder: Path, config: PreTrainedConfig, loader: Any) -> None:
    with torch.device("meta"):  # makes the model without its memory
        model = loader.from_config(config, trust_remote_code=False)
    n_values = sum(values.numel() for values in (*model.parameters(), *model.buffers()))
    check_described_values(folder, config.to_dict(), n_values)


def _load_weights(
    loader: Any, folder: Path, config: PreTrainedConfig, device: str, **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model, and list the weights that its files lack."""
    model, report = loader.from_pretrained(
        folder,
        config=config,
        device_map={"": device},
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    return model, sorted(report["missing_keys"])


def _convert_gemma(folder: Path) -> None:
    """Join and convert the parts of Gemma, once its terms are agreed to."""
    gemma.require_terms()
    gguf = folder / "joined.gguf"
    gemma.join_parts(gemma.gemma_parts(), gguf, gemma.FILE_SHA256)
    print(gemma.CONVERTING, file=sys.stderr, flush=True)
    _convert_gguf(gguf, folder)
    gguf.unlink()


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a folder that loads in seconds."""
    with _wrap_errors(f"embedded model {gguf}", "install its distribution again"):
        source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
        quantized = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, trust_remote_code=False
        )
    # transformers does not save weights from GGUF as long as their config is quantized.
    config = quantized.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
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
    if architecture not in kinds.values() or config.model_type not in kinds:
        raise ValueError(
            f"its architecture is {architecture!r} and its kind {config.model_type!r}; a decoder "
            "with a language-model head or an encoder-decoder like T5 is needed"
        )
    return loader


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


def decoder_cache(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """Give a cache of each layer's keys and values, of all positions whatever the window is."""
    cache = DynamicCache()
    for index, layer in enumerate(layers):
        cache.update(*layer, index)
    return cache


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # Without its vocabulary file a T5 tokenizer is empty instead of an error.
    if not any((folder / file).exists() for file in _VOCABULARIES):
        raise ValueError(f"there is no tokenizer in it (none of {', '.join(_VOCABULARIES)})")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ValueError(f"its tokenizer ({type(tokenizer).__name__}) has no tokenizers backend")
    return tokenizer


def _load_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel, get_peft_model_state_dict

    with _wrap_adapter_errors(adapter):
        adapted = PeftModel.from_pretrained(model, str(adapter))
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        with safe_open(adapter / ADAPTER_WEIGHTS_FILE, framework="pt") as file:
            found = set(file.keys())
        unexpected = expected - found or {key for key in found - expected if ".lora_" in key}
        if unexpected:
            raise ValueError(f"its layers are not this base model's, such as {min(unexpected)!r}")
    # The adapter's layers are inside the base model, so the wrapper is not needed any more.
    base: PreTrainedModel = adapted.get_base_model()
    return base


def _wrap_adapter_errors(adapter: Path) -> AbstractContextManager[None]:
    return _wrap_errors(
        f"adapter {str(adapter)!r}", "give the folder of one made for this base model"
    )


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
    except LlmrecError:
        raise
    except Exception as cause:  # on files that are not as they should be they raise anything
        reason = "".join(filter(str.isprintable, " ".join(str(cause).split())))[:300]
        raise ModelLoadError(f"{what} cannot be loaded: {reason}; {way_out}") from cause
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
