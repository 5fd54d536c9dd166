"""A language model that encodes texts, scores categories and titles, and generates lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmrec.errors import MissingExtraError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("a language model needs: pip install 'llmrec[llm]'") from error

from llmrec.language.adapters import (
    base_fingerprint,
    base_hash,
    merge_adapter_layers,
    verified_metadata,
    weights_fingerprint,
)
from llmrec.language.backends import Backend, Precision, Quantization, choose_precision, load_reader
from llmrec.language.forward import DecoderState, PromptCache, StateReader, mean_embedding
from llmrec.language.generation import (
    Generation,
    continuation_logprobs,
    generate_lines,
    run_in_batches,
    start_lines,
)
from llmrec.language.heads import CategoryHead, TitleEmbeddings, Verbalizer, load_heads
from llmrec.language.prefixes import PrefixCache, ReadState
from llmrec.language.pretrained import DEFAULT_MODEL, load_pretrained
from llmrec.language.tokenization import PlainTokenizer, Position, check_prompt_lengths
from llmrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


SCORING_BATCH_TOKENS = 1_024  # on a CPU larger batches are slower: activations leave the cache
CACHED_PROMPTS = 8_192  # prompts, the newest, that need no forward pass again; 2 to 4 KB each


class LanguageModel:
    """A decoder or an encoder-decoder (T5) with its tokenizer.

    Prompts are plain text that the model continues; no chat template is applied. In float32 a
    prompt gets the same answer alone, in any batch and in any order. Every method that takes
    prompts raises ValueError if one is empty or longer than the model's context.

    Parameters
    ----------
    name
        What the model is called in reports.
    model, tokenizer
        From transformers, in evaluation mode; see `load`.
    adapter
        Folder of the adapter inside the model, if there is one.
    category_head, title_embeddings
        The heads that were trained with the adapter, if there are any.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        adapter: str = "",
        category_head: CategoryHead | None = None,
        title_embeddings: TitleEmbeddings | None = None,
    ) -> None:
        self.name, self.model, self.tokenizer, self.adapter = name, model, tokenizer, adapter
        self.category_head, self.title_embeddings = category_head, title_embeddings
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self.reader: StateReader | None = None
        self.prefixes: PrefixCache | None = None  # of live use, see `continuing`
        self.prompt_cache, self._mean = PromptCache(CACHED_PROMPTS), mean_embedding(model)
        self._plain = PlainTokenizer.of_model(model, tokenizer)

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_MODEL,
        *,
        adapter: Path | None = None,
        device: str = "auto",
        dtype: Precision = "auto",
        quantize: Quantization | None = None,
        backend: Backend = "torch",
        merge: bool = True,
        verify: bool = True,
    ) -> LanguageModel:
        """Load a model by name.

        Parameters
        ----------
        name
            ``smollm2-135m`` (embedded), ``gemma-3-270m``, a local folder, or a hub id.
        adapter
            Folder of a LoRA adapter of this base model.
        device
            "auto" is the GPU if there is one.
        dtype
            "auto" is bfloat16 on a GPU that has it, otherwise float32.
        quantize
            Load the base model's weights in 4 or 8 bits (bitsandbytes); OpenVINO reads in "8bit".
        backend
            What computes the states that a category head reads: "openvino" on a CPU, "vllm" on a
            GPU, in ``dtype`` or ``quantize``; torch does everything else, in float32.
        merge
            Add LoRA's matrices to the weights where these are float32, see `merge_adapter_layers`.
        verify
            Whether adapter or merged model, and base model, must have the hashes that were stored.

        Raises
        ------
        ModelLoadError, MissingExtraError
            See `load_pretrained` and `load_reader`.
        """
        other = choose_precision(backend, dtype, quantize)
        if other:
            dtype, quantize, merge = "float32", None, True
            device = "cpu" if backend == "openvino" else device
        folder = Path(name).expanduser() if adapter is None else adapter  # a merged model has heads
        metadata = verified_metadata(folder, verify)
        about = metadata if adapter and verify else None
        model, tokenizer = load_pretrained(
            name, adapter, device=device, dtype=dtype, quantize=quantize, about=about
        )
        heads = load_heads(folder, model.get_input_embeddings().weight.shape[1], model.device)
        loaded = cls(name, model, tokenizer, str(adapter or ""), *heads)
        if adapter and metadata:
            metadata.require_compatible(loaded.base_fingerprint, metadata.labels, metadata.prompt)
        if adapter is not None and merge:
            _ = loaded.fingerprint, loaded.base_fingerprint  # of the weights as files have them
            merge_adapter_layers(model)
        if other:
            loaded.reader = load_reader(other, model, tokenizer, heads[0], loaded.fingerprint)
            loaded.fingerprint = f"{loaded.fingerprint} {loaded.reader.precision}".strip()
        return loaded

    @cached_property
    def fingerprint(self) -> str:
        """Hash of config and weights, see `weights_fingerprint`; with a backend's precision."""
        return weights_fingerprint(self.model)

    @cached_property
    def base_fingerprint(self) -> str:
        """Hash of what an adapter depends on, see `adapters.base_fingerprint`."""
        return base_fingerprint(self.model)

    @cached_property
    def base_hash(self) -> str:
        """See `adapters.base_hash`; to be read before an adapter is added."""
        return base_hash(self.model)

    @property
    def precision(self) -> str:
        """What it reads in: "float32", or "openvino 8bit"; see `saved_options`."""
        own = str(self.model.dtype).removeprefix("torch.")
        return own if self.reader is None else self.reader.precision or own

    @property
    def end_token_id(self) -> int:
        """The token that ends a generated line."""
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def context_length(self) -> int:
        """Tokens that the model takes at most (a decoder's line counts too)."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(positions or self.tokenizer.model_max_length)

    def count_tokens(self, text: str) -> int:
        """Count a prompt's positions, with those that the tokenizer adds to every text."""
        return len(self._plain.encode_prompts([text])[0])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts as token ids, none of them special: "</s>" in a title is four letters."""
        return self._plain.encode(texts)

    def encode_prompts(self, texts: Sequence[str]) -> list[list[Position]]:
        """Encode prompts as positions, each the token ids that share it (see `pooled_position`)."""
        return self._plain.encode_prompts(texts)

    def final_logits(
        self,
        prompts: Sequence[str],
        token_ids: IntArray,
        *,
        batch_tokens: int = SCORING_BATCH_TOKENS,
    ) -> FloatArray:
        """(n_prompts, n_token_ids) logits of some tokens at the read position of each prompt.

        That is a decoder's last prompt token, or the start token of T5's decoder.

        Parameters
        ----------
        prompts
            (n_prompts,) texts.
        token_ids
            (n_token_ids,) rows of the vocabulary.
        batch_tokens
            Tokens in one batch, padding included; prompts of similar length go together.
        """
        columns = torch.as_tensor(token_ids, device=self.model.device)
        rest = len(token_ids), lambda state: state.next_logits()[:, columns], batch_tokens
        return np.asarray(self._read(prompts, *rest).numpy(), dtype=np.float64)

    def final_states(
        self, prompts: Sequence[str], depth: int | None, *, batch_tokens: int = SCORING_BATCH_TOKENS
    ) -> torch.Tensor:
        """(n_prompts, d) hidden states after ``depth`` layers (None: all), float32, on the CPU.

        They are those at the read positions, see `final_logits`. A backend beside torch computes
        those that the category head reads, in batches of its own.
        """
        width = self.model.get_input_embeddings().weight.shape[1]
        batch_tokens = self.reader.batch_tokens if self.reader else batch_tokens
        return self._read(prompts, width, lambda state: state.hidden_states(depth), batch_tokens)

    def score_categories(self, prompts: Sequence[str], verbalizer: Verbalizer) -> FloatArray:
        """Score categories at the read position: (n_prompts, n_categories).

        The scores come from the category head of a fine-tuned adapter; without one they are the
        mean logits of the labels' tokens.
        """
        if self.category_head is None:
            return verbalizer.scores(self.final_logits(prompts, verbalizer.token_ids))
        states = self._read_states(prompts, self.category_head)
        table = self.model.get_input_embeddings().weight
        return self.category_head.category_scores(states, verbalizer, table)

    def title_probabilities(self, prompts: Sequence[str]) -> FloatArray:
        """(n_prompts, n_titles) probabilities that a title of its title embeddings is taken next.

        Category scores, title probabilities and the lists that follow them share a forward pass:
        the hidden states of the `CACHED_PROMPTS` newest prompts are kept.

        Raises
        ------
        ValueError
            If there are no title embeddings.
        """
        if (titles := self.title_embeddings) is None or (head := self.category_head) is None:
            raise ValueError(f"{self.name} has no title embeddings")
        return titles.probabilities(self._read_states(prompts, head))

    def title_rows(self, titles: Sequence[str]) -> IntArray:
        """(n,) columns of `title_probabilities` for titles as prompts show them; -1 without one.

        Raises
        ------
        ValueError
            If there are no title embeddings.
        """
        if self.title_embeddings is None:
            raise ValueError(f"{self.name} has no title embeddings")
        parts = self.encode([f" {title}" for title in titles])
        return np.array([self.title_embeddings.row_of(tuple(part)) for part in parts], np.int64)

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> FloatArray:
        """(n,) log-probability in nats of each text after a prompt, summed over its tokens.

        Parameters
        ----------
        continuations
            (n,) texts, in the middle of a sentence with the space before them; how they end is left
            open.

        Raises
        ------
        ValueError
            If a continuation is empty, or longer than what the prompt leaves of the context.
        """
        (start,), rows = self._checked_positions([prompt]), self.encode(continuations)
        limit = self._tokens_left(start)
        for text, row in zip(continuations, rows, strict=True):
            if not 1 <= len(row) <= limit:
                raise ValueError(f"continuation {text!r} has {len(row)} tokens, not 1..{limit}")
        return continuation_logprobs(self._start, start, rows)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        constrain: str | Sequence[str] | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generation]:
        """Generate one line after each prompt.

        Parameters
        ----------
        prompts
            (n_prompts,) texts.
        constrain
            A grammar in llguidance's Lark dialect (see grammar.py), or one for each prompt; lines
            then come to their end, whatever ``max_new_tokens`` is. None is free text, to an end
            token or the first line break.
        max_new_tokens
            Where a free line is cut.
        temperature
            0 takes the likeliest token each time.
        seed
            With the prompt's text it decides what is drawn, whatever else is in the batch.

        Raises
        ------
        ValueError
            If the grammar is not one, or asks for text that the tokenizer cannot write.
        """
        rows = self._checked_positions(prompts)
        limits = [self._tokens_left(row) for row in rows]
        lines = start_lines(
            self._plain, prompts, limits, constrain, max_new_tokens, temperature, seed
        )
        generate_lines(self._start, rows, lines)
        return [line.to_generation(self._plain) for line in lines]

    def _read(
        self, prompts: Sequence[str], width: int, read: ReadState, batch_tokens: int
    ) -> torch.Tensor:
        rows = self._checked_positions(prompts)
        if self.prefixes is not None and self.prefixes.can_continue(prompts, rows):
            return self.prefixes.read(self._start, rows, prompts, read)
        return run_in_batches(rows, width, lambda batch: read(self._start(batch)), batch_tokens)

    def _start(self, rows: Sequence[list[Position]], use_cache: bool = False) -> DecoderState:
        known = {"mean": self._mean, "use_cache": use_cache, "reader": self.reader}
        return DecoderState(self.model, rows, self.title_embeddings, **known)

    def _read_states(self, prompts: Sequence[str], head: CategoryHead) -> torch.Tensor:
        return self.prompt_cache.states(prompts, lambda new: self.final_states(new, head.depth))

    def _tokens_left(self, row: Sequence[Position]) -> int:
        return self.context_length - (0 if self.is_encoder_decoder else len(row))

    def _checked_positions(self, prompts: Sequence[str]) -> list[list[Position]]:
        rows = self._plain.encode_prompts(prompts)
        check_prompt_lengths(rows, self.context_length, self.name)
        return rows
