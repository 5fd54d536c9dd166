"""A language model behind three verbs: encode, read (one forward pass) and generate (a line)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmrec.errors import MissingExtraError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("a language model needs: pip install 'llmrec[llm]'") from error

from llmrec.language.adapters import AdapterMetadata
from llmrec.language.forward import DecoderState
from llmrec.language.generation import (
    GENERATION_BATCH_TOKENS,
    Generation,
    LineState,
    _batches,
    _generator,
    continuation_logprobs,
    generate_lines,
)
from llmrec.language.heads import (
    CATEGORY_HEAD_FILE,
    TITLE_EMBEDDINGS_FILE,
    CategoryHead,
    TitleEmbeddings,
    Verbalizer,
    label_embeddings,
)
from llmrec.language.pretrained import DEFAULT_MODEL, Precision, Quantization, load_pretrained
from llmrec.language.tokenization import PlainTokenizer, Position, token_positions
from llmrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Tokens in one batch. On a CPU larger ones read more slowly, since activations leave the cache, but
# when writing each pass over the weights serves all lines of a batch.
SCORING_BATCH_TOKENS = 2_048
CACHED_PROMPTS = 256  # prompts, the newest, of which what was foretold is not read again


class LanguageModel:
    """A decoder or an encoder-decoder (T5) with its tokenizer.

    Prompts are plain text that the model continues; no chat template is applied. In float32 a
    prompt gets the same answer alone, in any batch and in any order.

    Parameters
    ----------
    name
        What the model is called in reports.
    model, tokenizer
        From transformers, in evaluation mode; see `load`.
    adapter
        Folder of the adapter inside the model, if there is one.
    category_head, title_embeddings
        The adapter's own way from hidden states to scores, and what it knows of titles, if it has
        them.
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
        self._newest: dict[str, torch.Tensor] = {}
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._plain = PlainTokenizer(
            tokenizer,
            n_vocab=model.get_output_embeddings().out_features,
            end_ids=frozenset({*ends, tokenizer.eos_token_id} - {None}),
            encoder=self.is_encoder_decoder,
        )

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_MODEL,
        *,
        adapter: Path | None = None,
        device: str = "auto",
        dtype: Precision = "auto",
        quantize: Quantization | None = None,
    ) -> LanguageModel:
        """Load a model by name.

        Parameters
        ----------
        name
            ``smollm2-135m`` (embedded, no hub needed), a local folder, or a hub id.
        adapter
            Folder of a LoRA adapter of this base model.
        device
            "auto" is the GPU if there is one.
        dtype
            "auto" is bfloat16 on a GPU that has it, otherwise float32.
        quantize
            Load the base model's weights in 4 or 8 bits through bitsandbytes.

        Raises
        ------
        ModelLoadError, MissingExtraError
            See `load_pretrained`.
        """
        model, tokenizer = load_pretrained(
            name, adapter=adapter, device=device, dtype=dtype, quantize=quantize
        )
        folder = Path(name).expanduser() if adapter is None else adapter  # a merged model has one
        width, readout, memory = model.get_input_embeddings().weight.shape[1], None, None
        if (folder / CATEGORY_HEAD_FILE).exists():
            readout = CategoryHead.load(folder, width)
        if (folder / TITLE_EMBEDDINGS_FILE).exists():
            memory = TitleEmbeddings.load(folder, width).to(model.device)
        loaded = cls(name, model, tokenizer, str(adapter or ""), readout, memory)
        if adapter is not None and (about := AdapterMetadata.load_if_present(adapter)):
            about.require_compatible(loaded.base_fingerprint, about.labels, about.prompt)
        return loaded

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the config and of 16 numbers of each weight tensor: 16 hexadecimal digits."""
        config = self.model.config.to_dict()
        left_out = ("_", "tr", "dtype", "torch_dtype", "quantization")
        described = {k: v for k, v in sorted(config.items()) if not k.startswith(left_out)}
        digest = hashlib.sha256(json.dumps(described, default=str).encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            sample = tensor.flatten()[:: max(1, tensor.numel() // 16)][:16]
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(sample.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def precision(self) -> str:
        """What it computes in, as `load` calls it: "float32"."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def end(self) -> int:
        """Token that ends what the model writes."""
        end: int = self.tokenizer.eos_token_id
        return end

    @cached_property
    def base_fingerprint(self) -> str:
        """Hash of what an adapter has to know of its base model: 16 hexadecimal digits.

        Sizes, and numbers of the embeddings and of all norms in bfloat16: the same in any
        precision, quantized or not, and with an adapter inside.
        """
        config, table = self.model.config, self.model.get_input_embeddings().weight
        layers = getattr(config, "num_hidden_layers", None)
        digest = hashlib.sha256(f"{config.model_type}{layers}{tuple(table.shape)}".encode())
        norms = {
            name: value for name, value in self.model.named_parameters() if "norm.weight" in name
        }
        for _, value in sorted({"": table, **norms}.items()):
            numbers = value.detach().flatten()
            sample = numbers[:: max(1, numbers.numel() // 1024)][:1024]
            digest.update(sample.bfloat16().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def context(self) -> int:
        """Tokens that the model takes at most (a decoder's line counts too)."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(positions or self.tokenizer.model_max_length)

    def count_tokens(self, text: str) -> int:
        """Count a prompt's positions, those included that the tokenizer puts around every text."""
        return len(self._plain.prompts([text])[0])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids, none of them special: "</s>" in a title is four letters."""
        return self._plain.encode(texts)

    def positions(self, texts: Sequence[str]) -> list[list[Position]]:
        """Turn prompts into positions, each the token ids that share it (see `bag`)."""
        return self._plain.prompts(texts)

    def final_logits(
        self,
        prompts: Sequence[str],
        token_ids: IntArray,
        *,
        batch_tokens: int = SCORING_BATCH_TOKENS,
    ) -> FloatArray:
        """Read the logits of the token that would follow each prompt, in one forward pass.

        The slot is a decoder's last prompt token, or the start token of T5's decoder.

        Parameters
        ----------
        prompts
            (n_prompts,) texts.
        token_ids
            (n_token_ids,) the vocabulary rows wanted.
        batch_tokens
            Tokens in one batch, padding included; prompts of similar length go together.

        Returns
        -------
        FloatArray
            (n_prompts, n_token_ids) in the order asked for.

        Raises
        ------
        ValueError
            If a prompt is empty or longer than the model's context.
        """
        columns = torch.as_tensor(token_ids, device=self.model.device)

        def logits(session: DecoderState) -> torch.Tensor:
            return session.next_logits(session.first_block)[:, columns]

        found = self._at_slots(prompts, len(token_ids), logits, batch_tokens)
        return np.asarray(found.numpy(), dtype=np.float64)

    def final_states(
        self, prompts: Sequence[str], depth: int | None, *, batch_tokens: int = SCORING_BATCH_TOKENS
    ) -> torch.Tensor:
        """(n_prompts, d) hidden states after ``depth`` layers (None: all), float32, on the CPU.

        They are those at the slots that `slot_logits` reads.
        """

        def states(session: DecoderState) -> torch.Tensor:
            return session.states(session.first_block, depth)

        width = self.model.get_input_embeddings().weight.shape[1]
        return self._at_slots(prompts, width, states, batch_tokens)

    def _at_slots(
        self,
        prompts: Sequence[str],
        width: int,
        ask: Callable[[DecoderState], torch.Tensor],
        batch_tokens: int,
    ) -> torch.Tensor:
        """(n_prompts, width) float32 of what is asked of a session at its prompts' slots."""
        rows = self._prompt_ids(prompts)
        found = torch.empty((len(rows), width))
        with torch.inference_mode():
            for batch in _batches(rows, batch_tokens):
                session = self._session([rows[i] for i in batch], keep_cache=False)
                found[batch] = ask(session).float().cpu()
        return found

    def score_categories(self, prompts: Sequence[str], readout: Verbalizer) -> FloatArray:
        """Score categories at the read slot: (n_prompts, n_categories).

        The scores are the mean logits of the names' tokens, or what a fine-tuned adapter's own
        readout makes of the hidden state.

        Raises
        ------
        ValueError
            If a prompt is empty or longer than the model's context.
        """
        if self.category_head is None:
            return readout.scores(self.final_logits(prompts, readout.token_ids))
        names = label_embeddings(readout, self.model.get_input_embeddings().weight)
        with torch.inference_mode():
            states = self.final_states(prompts, self.category_head.depth)
            scores = self.category_head(states, names.cpu())
        return np.asarray(scores.numpy(), dtype=np.float64)

    def title_probabilities(self, prompts: Sequence[str]) -> FloatArray:
        """(n_prompts, n_titles) probabilities of the titles of its memory to be taken next.

        The `CACHED_PROMPTS` newest prompts are not read again: a list follows its forecast, from
        one reading.

        Raises
        ------
        ValueError
            If there is no memory, or a prompt is empty or longer than the model's context.
        """
        if self.title_embeddings is None or self.category_head is None:
            raise ValueError(f"{self.name} has no memory of titles")
        with torch.inference_mode():
            states = self._read_once(prompts, self.category_head.depth)
            scores = self.title_embeddings.scores(states.to(self.title_embeddings.common.device))
            found = torch.softmax(scores.double(), dim=1)
        return np.asarray(found.cpu().numpy())

    def _read_once(self, prompts: Sequence[str], depth: int | None) -> torch.Tensor:
        """Give `slot_states`, of the newest prompts as they were.

        What is kept is never changed in place: of threads that ask at once the last one's stays.
        """
        known = self._newest
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        read = self.final_states(new, depth)
        known = known | {prompt: row.clone() for prompt, row in zip(new, read, strict=True)}
        self._newest = dict([*known.items()][-CACHED_PROMPTS:])
        return torch.stack([known[prompt] for prompt in prompts]) if prompts else read

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> FloatArray:
        """Log-probability of each text as what follows a prompt, which is read once a batch.

        Parameters
        ----------
        continuations
            (n,) texts, in the middle of a sentence with the space before them; how they end is left
            open.

        Returns
        -------
        FloatArray
            (n,) sums over a text's tokens, nats.

        Raises
        ------
        ValueError
            If the prompt or a continuation is empty, or both together are longer than the context.
        """
        (start,), rows = self._prompt_ids([prompt]), self.encode(continuations)
        room = self.context - (0 if self.is_encoder_decoder else len(start))
        for text, row in zip(continuations, rows, strict=True):
            if not 1 <= len(row) <= room:
                raise ValueError(f"continuation {text!r} has {len(row)} tokens, not 1..{room}")
        found = np.empty(len(rows))
        with torch.inference_mode():
            for batch in _batches([token_positions(row) for row in rows], GENERATION_BATCH_TOKENS):
                session = self._session([start])
                found[batch] = continuation_logprobs(session, [rows[i] for i in batch])
        return found

    def generate(
        self,
        prompts: Sequence[str],
        *,
        constrain: str | Sequence[str] | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generation]:
        """Write one line after each prompt.

        Parameters
        ----------
        prompts
            (n_prompts,) texts.
        constrain
            A grammar in llguidance's Lark dialect (see grammar.py), or one for each prompt; lines
            are then written to their end, whatever ``max_new_tokens`` says. None writes freely, to
            an end token or the first line break.
        max_new_tokens
            Where a free line is cut.
        temperature
            0 takes the likeliest token each time.
        seed
            With the prompt's text it decides what is drawn, whatever else is in the batch.

        Raises
        ------
        ValueError
            If a prompt is empty or longer than the model's context, the grammar is not one, or it
            asks for text that the tokenizer cannot write.
        """
        rows = self._prompt_ids(prompts)
        grammars = [constrain] * len(rows) if isinstance(constrain, str | None) else constrain
        compiled = {grammar: self._plain.matcher(grammar) for grammar in grammars if grammar}
        lines = []
        for prompt, row, grammar in zip(prompts, rows, grammars, strict=True):
            matcher = compiled[grammar].deep_copy() if grammar else None
            room = self.context - (0 if self.is_encoder_decoder else len(row))
            room = room if matcher else min(room, max_new_tokens)
            generator = _generator(seed, prompt)
            lines.append(LineState(self._plain.ends, room, temperature, generator, matcher))
        with torch.inference_mode():
            for batch in _batches(rows, GENERATION_BATCH_TOKENS):
                generate_lines(self._session([rows[i] for i in batch]), [lines[i] for i in batch])
        return [self._generation(line) for line in lines]

    def _session(self, rows: Sequence[list[Position]], *, keep_cache: bool = True) -> DecoderState:
        return DecoderState(self.model, rows, self.title_embeddings, keep_cache=keep_cache)

    def _prompt_ids(self, prompts: Sequence[str]) -> list[list[Position]]:
        rows = self._plain.prompts(prompts)
        for i, row in enumerate(rows):
            if not row:
                raise ValueError(f"prompt {i} is empty: there is nothing to continue")
            if len(row) > self.context:
                raise ValueError(
                    f"prompt {i} has {len(row)} tokens and {self.name} takes at most "
                    f"{self.context}: give it a smaller token budget"
                )
        return rows

    def _generation(self, line: LineState) -> Generation:
        text = self._plain.line(line.tokens)
        return Generation(text, len(line.tokens), line.n_forced, line.finished)
