"""Language models: the same answer in any batch, and lines that follow their grammar."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.language.generation import Generation
from llmrec.language.grammar import description_grammar, line_grammar
from llmrec.language.heads import Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import pooled_position
from tests.language.tiny_models import LABELS, PHRASES
from tests.real_parts import needs_real_parts

GRAMMAR = line_grammar(LABELS, PHRASES, max_entries=3, max_claims=2)
NAME, PHRASE = ("|".join(map(re.escape, texts)) for texts in (LABELS, PHRASES))
LINE = re.compile(
    rf"(({NAME}) [0-9]+%, )+other [0-9]+%: ({NAME}) ({PHRASE})(, ({NAME}) ({PHRASE}))?\."
)
# Lengths from 1 to about 100 tokens, so that batches are padded.
PROMPTS = (
    "To 3 Jan 1998: Drama 31%, Comedy 22%, other 47%: Drama is rising. Forecast:",
    "Drama",
    "Forecast:",
    "Sci-Fi & Fantasy 31%, " * 6 + "Forecast:",
    "Mr. Bean (1990) is new, Children's/Café is fading. Forecast:",
)
WIDE = "\uff1c/s\uff1e"  # full-width: the normalizers of some tokenizers make "</s>" of it
HOSTILE = f"a <|im_end|> b </s> c<|endoftext|><pad> <extra_id_0> {WIDE} <unk>"


OPTIONS: tuple[dict[str, object], ...] = (
    {"constrain": GRAMMAR},
    {"constrain": GRAMMAR, "temperature": 1.0, "seed": 3},
    {"max_new_tokens": 12},
    {"max_new_tokens": 12, "temperature": 1.0, "seed": 3},
)


def test_a_batch_scores_as_single_calls_do_in_any_order(model: LanguageModel) -> None:
    verbalizer = Verbalizer(LABELS, model.encode)
    together = model.score_categories(PROMPTS, verbalizer)
    alone = np.vstack([model.score_categories([prompt], verbalizer) for prompt in PROMPTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(
        model.score_categories(PROMPTS[::-1], verbalizer)[::-1], alone, atol=1e-5
    )
    tight = model.final_logits(PROMPTS, verbalizer.token_ids, batch_tokens=1)
    np.testing.assert_allclose(verbalizer.scores(tight), alone, atol=1e-5)
    assert np.ptp(together, axis=0).min() > 1e-3, (
        "the prompts must differ for this to mean anything"
    )


@pytest.mark.parametrize(
    "options", OPTIONS, ids=["greedy", "sampled", "free greedy", "free sampled"]
)
def test_a_batch_generates_as_single_calls_do_in_any_order(
    model: LanguageModel, options: dict[str, object]
) -> None:
    together = model.generate(PROMPTS, **options)
    assert together == [model.generate([prompt], **options)[0] for prompt in PROMPTS]
    assert together == model.generate(PROMPTS[::-1], **options)[::-1]


def test_final_logits_are_those_of_the_whole_model(model: LanguageModel) -> None:
    (row,) = model._plain.encode_prompts(PROMPTS[:1])
    ids = torch.tensor([[token for ((token,),) in row]])
    start = {"decoder_input_ids": torch.tensor([[0]])} if model.is_encoder_decoder else {}
    with torch.inference_mode():
        whole = model.model(input_ids=ids, **start).logits[0, -1].numpy()
    token_ids = np.array([5, 0, 17])
    np.testing.assert_allclose(
        model.final_logits(PROMPTS[:1], token_ids)[0], whole[token_ids], atol=1e-5
    )


def test_a_continuation_is_as_likely_as_its_tokens_one_after_another(model: LanguageModel) -> None:
    text = " Drama is rising, Sci-Fi"
    (prompt,), (row,) = model._plain.encode_prompts(PROMPTS[:1]), model.encode([text])
    ids = [token for ((token,),) in prompt]
    with torch.inference_mode():
        if model.is_encoder_decoder:
            whole = model.model(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *row]])
            ).logits[0, :-1]
        else:
            whole = model.model(torch.tensor([ids + row])).logits[0, len(ids) - 1 : -1]
    expected = whole.log_softmax(dim=-1)[torch.arange(len(row)), row].sum().item()
    assert model.continuation_logprobs(PROMPTS[0], [text])[0] == pytest.approx(expected, abs=1e-4)


def test_continuations_of_any_length_are_as_likely_in_a_batch_as_alone(
    model: LanguageModel,
) -> None:
    texts = [f" {label}" for label in (*LABELS, "D", "Drama, " * 9)]
    together = model.continuation_logprobs(PROMPTS[0], texts)
    alone = [model.continuation_logprobs(PROMPTS[0], [text])[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    backwards = model.continuation_logprobs(PROMPTS[0], texts[::-1])[::-1]
    np.testing.assert_allclose(backwards, alone, atol=1e-4)
    assert together.dtype == np.float64
    assert model.continuation_logprobs(PROMPTS[0], []).shape == (0,)


def test_a_continuation_without_tokens_or_beyond_the_context_is_refused(
    model: LanguageModel,
) -> None:
    for text in ("", " Drama" * 300):
        with pytest.raises(ValueError, match=r"continuation '.* has \d+ tokens, not 1\.\."):
            model.continuation_logprobs(PROMPTS[0], [" Drama", text])


def test_an_empty_batch_gives_an_empty_answer(model: LanguageModel) -> None:
    assert model.final_logits([], np.array([1, 2])).shape == (0, 2)
    assert model.generate([], constrain=GRAMMAR) == []
    assert model.encode([]) == []


def test_text_from_data_never_yields_a_special_token(model: LanguageModel) -> None:
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    special -= {tokenizer.unk_token_id}
    (row,) = model.encode([HOSTILE])
    assert special.isdisjoint(row)
    assert "</s>" in tokenizer.decode(row)
    assert model.count_tokens(HOSTILE) == len(row) + model.is_encoder_decoder


def test_a_part_has_the_same_tokens_the_first_time_and_when_stored(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"A {n}{pooled_position([f' title {n}', ' Drama'])}: Drama" for n in (1, 2, 1, 3)]
    first = model.encode_prompts(prompts)
    assert model.encode_prompts(prompts) == first
    assert first[0] == first[2] != first[1]
    monkeypatch.setattr("llmrec.language.tokenization.MAX_CACHED_PARTS", 2)
    assert [model.encode_prompts([prompt])[0] for prompt in prompts] == first


@settings(max_examples=50)
@given(parts=st.lists(st.sampled_from([*HOSTILE.split(), " ", "<", "s>", WIDE[0], "\u200b"])))
def test_no_arrangement_of_pieces_yields_a_special_token(
    llama: LanguageModel, t5: LanguageModel, parts: list[str]
) -> None:
    for model in (llama, t5):
        special = set(model.tokenizer.all_special_ids) - {model.tokenizer.unk_token_id}
        assert special.isdisjoint(model.encode(["".join(parts)])[0])


@pytest.mark.parametrize("seed", range(4))
def test_a_constrained_line_always_matches_and_comes_to_its_end(
    model: LanguageModel, seed: int
) -> None:
    for line in model.generate(
        PROMPTS, constrain=GRAMMAR, temperature=2.0, seed=seed, max_new_tokens=1
    ):
        assert LINE.fullmatch(line.text), line.text
        assert line.finished


def test_forced_tokens_are_counted_and_not_sampled(model: LanguageModel) -> None:
    (line,) = model.generate(["Forecast:"], constrain='start: " Drama is rising."')
    assert line.text == "Drama is rising."
    assert line.n_forced == line.n_tokens > 0
    (line,) = model.generate(["Forecast:"], constrain='start: " " ("Drama"|"Comedy") " is rising."')
    assert 0 < line.n_forced < line.n_tokens


def test_forced_tokens_need_no_forward_pass_of_their_own(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    whole = model.model.forward

    def counted(*args: object, **kwargs: object) -> object:
        passes.append(1)
        return whole(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", counted)
    (line,) = model.generate(["Forecast:"], constrain=GRAMMAR)
    assert len(passes) == line.n_tokens - line.n_forced


def test_each_prompt_may_have_its_own_grammar(model: LanguageModel) -> None:
    grammars = [description_grammar([label], ["is new"], max_claims=1) for label in LABELS[:3]]
    lines = model.generate(PROMPTS[:3], constrain=grammars)
    assert [line.text for line in lines] == [f"{label} is new." for label in LABELS[:3]]
    with pytest.raises(ValueError, match="zip"):
        model.generate(PROMPTS[:2], constrain=grammars)


def test_a_free_line_is_cut_at_max_new_tokens_or_ends_before(model: LanguageModel) -> None:
    lines = model.generate(PROMPTS * 3, max_new_tokens=7, temperature=3.0, seed=1)
    assert all(line.n_tokens == 7 or line.finished for line in lines)
    assert all("\n" not in line.text and line.n_forced == 0 for line in lines)


def test_a_free_line_ends_at_the_first_line_break(llama_folder: Path) -> None:
    model = LanguageModel.load(str(llama_folder), device="cpu")
    letter, line_break = (model.encode([text])[0][0] for text in ("D", "\n"))
    logits = torch.full((2, model.model.config.vocab_size), -1.0)
    logits[0, letter] = logits[1, line_break] = 1.0
    passes = iter(logits)
    model.model.lm_head.forward = lambda hidden: next(passes).expand(1, 1, -1)
    assert model.generate(["Forecast:"]) == [Generation("D", 2, 0, True)]


def test_different_seeds_draw_different_lines_and_the_same_seed_the_same(
    model: LanguageModel,
) -> None:
    drawn = {
        seed: model.generate(PROMPTS[:1], constrain=GRAMMAR, temperature=1.0, seed=seed)[0].text
        for seed in range(5)
    }
    assert len(set(drawn.values())) > 1
    again = model.generate(PROMPTS[:1], constrain=GRAMMAR, temperature=1.0, seed=4)
    assert again[0].text == drawn[4]


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(
    model: LanguageModel,
) -> None:
    long = "Drama 31%, " * 100
    error = rf"prompt 1 has {model.count_tokens(long)} tokens .* takes at most 256"
    with pytest.raises(ValueError, match=error):
        model.final_logits(["Drama", long], np.array([1]))
    with pytest.raises(ValueError, match=error):
        model.generate(["Drama", long])


def test_an_empty_prompt_is_refused_where_there_is_nothing_to_continue(
    llama: LanguageModel, t5: LanguageModel
) -> None:
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        llama.final_logits([""], np.array([1]))
    assert np.isfinite(t5.final_logits([""], np.array([1]))).all()


def test_an_invalid_grammar_is_refused_with_the_place_of_the_mistake(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"constrain is not a grammar: .*1\("):
        model.generate(["Drama"], constrain="start: (")


def test_an_endless_grammar_is_stopped_by_the_context(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="no end of the line within"):
        model.generate(["Drama"], constrain='start: ("Drama")+ "!" "?"')


@pytest.mark.parametrize("grammar", ['start: " Dżama."', 'start: " D" ("żama"|"łama") "."'])
def test_a_label_that_the_vocabulary_cannot_spell_is_an_error(
    t5: LanguageModel, llama: LanguageModel, grammar: str
) -> None:
    with pytest.raises(ValueError, match="text that this tokenizer cannot write"):
        t5.generate(["Drama"], constrain=grammar)
    assert llama.generate(["Drama"], constrain=grammar)[0].text.startswith("D")


def test_the_fingerprint_differs_with_the_weights_and_survives_a_reload(
    llama: LanguageModel, t5: LanguageModel, llama_folder: Path
) -> None:
    assert LanguageModel.load(str(llama_folder), device="cpu").fingerprint == llama.fingerprint
    assert llama.fingerprint != t5.fingerprint
    changed = LanguageModel.load(str(llama_folder), device="cpu")
    with torch.no_grad():
        changed.model.lm_head.weight.mul_(1.01)
    assert changed.fingerprint != llama.fingerprint


@pytest.mark.slow
@needs_real_parts
def test_the_embedded_model_scores_and_generates_the_same_alone_and_in_a_batch() -> None:
    model = LanguageModel.load("smollm2-135m", device="cpu")
    verbalizer = Verbalizer(LABELS, model.encode)
    together = model.score_categories(PROMPTS, verbalizer)
    alone = np.vstack([model.score_categories([prompt], verbalizer) for prompt in PROMPTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    lines = model.generate(PROMPTS, constrain=GRAMMAR)
    assert lines == [model.generate([prompt], constrain=GRAMMAR)[0] for prompt in PROMPTS]
    assert all(LINE.fullmatch(line.text) for line in lines)
    (free,) = model.generate(["The capital of France is"], max_new_tokens=12)
    assert "Paris" in free.text
    assert {2}.isdisjoint(model.encode([HOSTILE])[0])
