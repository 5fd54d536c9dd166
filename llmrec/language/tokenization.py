"""Text to token ids that are never special, token ids to lines, and compiled grammars.

A pooled position is one position of the model, however much text it holds: parts, each of which
weighs the same (see `llmrec.language.forward.embed_positions`). It is marked in a prompt by control
characters, which cleaned text never holds: data cannot forge them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MAX_CACHED_PARTS = 100_000  # texts whose tokens are kept, of titles and categories mostly
POOL_START, POOL_SEPARATOR, POOL_END = "\x02", "\x1f", "\x03"
_POOLED = re.compile(f"{POOL_START}([^{POOL_END}]*){POOL_END}")
Position = tuple[tuple[int, ...], ...]  # parts, each of some tokens; a token alone is ((token,),)


class Prompt(str):
    """The text of a prompt, which says whose it is.

    Attributes
    ----------
    person
        Id of the person whose events it tells; "" if nobody knows.
    is_trial
        Whether it leaves out events that the person has: nothing is kept of it.
    """

    person: str
    is_trial: bool

    def __new__(cls, text: str, person: str = "", is_trial: bool = False) -> Prompt:
        """Give a text an owner."""
        found = super().__new__(cls, text)
        found.person, found.is_trial = person, is_trial
        return found


def pooled_position(parts: Sequence[str]) -> str:
    """Join texts as the parts of one pooled position."""
    return f"{POOL_START}{POOL_SEPARATOR.join(parts)}{POOL_END}"


def token_positions(tokens: Sequence[int]) -> list[Position]:
    """Give each token a position of its own."""
    return [((token,),) for token in tokens]


class PlainTokenizer:
    """A tokenizer for text that comes from data.

    Parameters
    ----------
    tokenizer
        From transformers, with the tokenizers backend.
    n_vocab
        Logits that the model gives, at least the tokenizer's size.
    end_ids
        Tokens that end a generated line.
    encoder
        Whether prompts go to an encoder: the tokenizer's own tokens then stand after a prompt
        (T5's end token), otherwise before it (a first token, if there is one).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        n_vocab: int,
        end_ids: frozenset[int],
        encoder: bool,
    ) -> None:
        self._tokenizer, self._n_vocab, self._end_ids = tokenizer, n_vocab, end_ids
        self._encoder = encoder
        self._stored_parts: dict[str, tuple[int, ...]] = {}
        self._added_tokens: list[int] = list(tokenizer("")["input_ids"])

    @classmethod
    def of_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PlainTokenizer:
        """Make the one of a model: of its vocabulary, end tokens and kind."""
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return cls(
            tokenizer,
            n_vocab=model.get_output_embeddings().out_features,
            end_ids=frozenset({*ends, tokenizer.eos_token_id} - {None}),
            encoder=bool(model.config.is_encoder_decoder),
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts as token ids, none of them special: "</s>" in a title is four letters."""
        if not texts:
            return []
        rows: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        spelling = self._spelling
        return [[piece for token in row for piece in spelling.get(token, [token])] for row in rows]

    def encode_prompts(self, texts: Sequence[str]) -> list[list[Position]]:
        """Encode texts as positions, the tokenizer's own tokens before or after them.

        Raises
        ------
        ValueError
            If a part of a pooled position holds no token.
        """
        frame = token_positions(self._added_tokens)
        before, after = ([], frame) if self._encoder else (frame, [])
        split = [_POOLED.split(text) for text in texts]  # text, pooled, text, pooled, ..., text
        pieces = [piece.split(POOL_SEPARATOR) for row in split for piece in row]
        tokens_of = self._encode_parts([part for piece in pieces for part in piece])
        found = []
        for row in split:
            positions = list(before)
            for place, piece in enumerate(row):
                parts = [tokens_of[part] for part in piece.split(POOL_SEPARATOR)]
                if place % 2 == 0:
                    positions += token_positions([token for part in parts for token in part])
                elif all(parts):
                    positions.append(tuple(parts))
                else:
                    raise ValueError(f"a part of {piece!r} has no tokens: give it a text")
            found.append([*positions, *after])
        return found

    def _encode_parts(self, parts: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Encode each part once: the same titles and categories stand in prompt after prompt."""
        wanted = dict.fromkeys(parts)
        stored = self._stored_parts
        missing = [part for part in wanted if part not in stored]
        new = dict(zip(missing, map(tuple, self.encode(missing)), strict=True))
        found = {part: new[part] if part in new else stored[part] for part in wanted}
        if len(stored) + len(new) > MAX_CACHED_PARTS:
            self._stored_parts = new
        else:
            stored.update(new)  # it only grows, so threads may share it
        return found

    def decode_line(self, tokens: Sequence[int]) -> str:
        """Decode tokens to the text before the first line break, without spaces around it."""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.partition("\n")[0].strip()

    def is_end(self, token: int) -> bool:
        """Whether a token ends a line: an end token or one with a line break."""
        return token in self._end_ids or "\n" in self._tokenizer.decode([token])

    def compile_grammar(self, grammar: str) -> LLMatcher:
        """Compile a grammar in llguidance's Lark dialect.

        Raises
        ------
        ValueError
            With the place of the mistake, if it is not one.
        """
        from llguidance import LLMatcher

        matcher = LLMatcher(self._grammar_tokenizer, grammar)
        if matcher.is_error():
            raise ValueError(f"constrain is not a grammar: {matcher.get_error():.300}")
        return matcher

    @cached_property
    def _spelling(self) -> dict[int, list[int]]:
        """Spell special tokens letter by letter, where the tokenizer's own switch does not reach.

        T5's vocabulary holds "</s>" as a piece like any other, and its normalizer makes it from
        full-width characters too.
        """
        model = self._tokenizer.backend_tokenizer.model
        added = {i: str(token) for i, token in self._tokenizer.added_tokens_decoder.items()}
        return {
            i: [piece.id for letter in text for piece in model.tokenize(letter)]
            for i, text in added.items()
            if text.strip() and i != self._tokenizer.unk_token_id
        }

    @cached_property
    def _grammar_tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        settings = json.loads(self._tokenizer.backend_tokenizer.to_str())
        if settings["decoder"] and settings["decoder"]["type"] == "Metaspace":
            settings |= _SENTENCEPIECE
        return LLTokenizer(
            json.dumps(settings), n_vocab=self._n_vocab, eos_token=self._tokenizer.eos_token_id
        )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash a tokenizer's vocabulary and special tokens: 16 hexadecimal digits."""
    content = [sorted(tokenizer.get_vocab().items()), sorted(tokenizer.all_special_ids)]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def check_prompt_lengths(rows: Sequence[Sequence[Position]], limit: int, model: str) -> None:
    """Raise ValueError for a prompt that is empty or longer than a model's context."""
    for i, row in enumerate(rows):
        if not row:
            raise ValueError(f"prompt {i} is empty: there is nothing to continue")
        if len(row) > limit:
            raise ValueError(
                f"prompt {i} has {len(row)} tokens and {model} takes at most {limit}: give it a "
                "smaller token budget"
            )


# Byte-exact SentencePiece pieces need this: every space stays as it is, none is added in front and
# none is dropped.
_SENTENCEPIECE = {
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "never",
        "split": True,
    },
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    },
}
