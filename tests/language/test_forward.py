"""Forward passes: embedded positions, hidden states in any batch, and truncated decoders."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from llmrec.language.forward import DecoderState, embed_positions, truncated_decoder
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import Position, pooled_position, token_positions
from llmrec.training.lora import add_lora
from tests.language.tiny_models import save_llama


def test_a_token_keeps_its_embedding_and_a_pooled_position_follows_the_formula(
    model: LanguageModel,
) -> None:
    module = model.model.get_input_embeddings()
    table, mean = module.weight, module.weight.mean(dim=0)
    rows: list[list[Position]] = [[((3,),), ((4, 5), (6,), (6, 6, 7))], [((7,),)]]
    with torch.inference_mode():
        embedded, mask = embed_positions(model.model, rows)
        parts = torch.stack([table[[4, 5]].mean(dim=0), table[6], table[[6, 6, 7]].mean(dim=0)])
        expected = mean + (parts - mean).sum(dim=0) / 3**0.5
        torch.testing.assert_close(embedded[0, 1], expected)
        assert torch.equal(embedded[[0, 1], [0, 1]], module(torch.tensor([3, 7])))
        assert torch.equal(embed_positions(model.model, rows[1:])[0][0], module(torch.tensor([7])))
    assert mask.tolist() == [[1, 1], [0, 1]]
    assert not embedded[1, 0].any()


def test_the_order_of_parts_does_not_matter_and_the_parts_do(model: LanguageModel) -> None:
    start: Position = ((3,),)
    pooled: list[Position] = [((4,), (5, 6)), ((6, 5), (4,)), ((4, 5, 6),), ((4,), (5,), (6,))]
    state = DecoderState(model.model, [[start, parts] for parts in pooled], use_cache=False)
    with torch.inference_mode():
        found = state.hidden_states()
    torch.testing.assert_close(found[0], found[1])
    for other in (found[2], found[3]):
        assert (found[0] - other).abs().max() > 1e-3


def test_embeddings_that_a_model_scales_are_scaled() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50}
    gemma = GemmaForCausalLM(GemmaConfig(**sizes, **heads)).eval()
    with torch.inference_mode():
        embedded, _ = embed_positions(gemma, [token_positions([3, 4])])
        torch.testing.assert_close(embedded, gemma.get_input_embeddings()(torch.tensor([[3, 4]])))


PROMPTS = [
    "Drama",
    f"To 3 Jan 1998:{pooled_position([' Drama 31%'])}{pooled_position([' Comedy', ' Drama'])}",
    f"Comedy{pooled_position([' Sci-Fi & Fantasy', ' Drama'])}{pooled_position([' i'])}"
    ": Drama is rising.",
    "Sci-Fi & Fantasy 31%, " * 4,
]


@pytest.mark.parametrize("depth", [None, 1, 2])
def test_a_batch_of_states_is_what_single_prompts_give_in_any_order(
    model: LanguageModel, depth: int | None
) -> None:
    if depth and model.is_encoder_decoder:
        pytest.skip("only decoders have a depth")
    together = model.final_states(PROMPTS, depth)
    alone = torch.cat([model.final_states([prompt], depth) for prompt in PROMPTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    turned = model.final_states(PROMPTS[::-1], depth, batch_tokens=1).flip(0)
    torch.testing.assert_close(turned, alone, atol=1e-5, rtol=0)
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(alone))


def test_final_states_give_the_final_logits(model: LanguageModel) -> None:
    columns = np.arange(model.model.get_output_embeddings().out_features)
    with torch.inference_mode():
        states = model.final_states(PROMPTS, None)
        if getattr(model.model.config, "scale_decoder_outputs", False):
            states = states * model.model.config.d_model**-0.5
        logits = model.model.get_output_embeddings()(states).numpy()
    np.testing.assert_allclose(logits, model.final_logits(PROMPTS, columns), atol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_a_truncated_decoder_shares_its_layers_and_leaves_the_model_as_it_is(
    tmp_path: Path, lora: bool
) -> None:
    model = LanguageModel.load(str(save_llama(tmp_path, num_hidden_layers=3)), device="cpu")
    if lora:
        inside = add_lora(model.model, rank=2, alpha=4, dropout=0.0, targets=["q_proj"])
        for name, values in inside.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(values)
    ids = torch.tensor([[5, 9, 17, 3]])
    before = model.model(ids).logits
    states = model.model(ids, output_hidden_states=True).hidden_states
    norm = model.model.get_decoder().norm
    for depth in (1, 2, 3, None):
        found = truncated_decoder(model.model, depth)(ids).last_hidden_state
        expected = states[-1] if depth in (3, None) else norm(states[depth])
        torch.testing.assert_close(found, expected)
    truncated_decoder(model.model, 1)(ids).last_hidden_state.sum().backward()
    moved = {name for name, values in model.model.named_parameters() if values.grad is not None}
    assert not any(name.startswith(("model.layers.1", "model.layers.2")) for name in moved)
    assert any("layers.0" in name for name in moved)
    assert torch.equal(model.model(ids).logits, before)
    assert len(model.model.get_decoder().layers) == 3


@pytest.mark.parametrize("depth", [0, -1, 3])
def test_a_depth_that_a_model_does_not_have_is_refused(llama: LanguageModel, depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth} does not exist in a model of 2"):
        truncated_decoder(llama.model, depth)


def test_an_encoder_decoder_has_no_depth(t5: LanguageModel) -> None:
    with pytest.raises(ValueError, match="depth 1 does not exist"):
        t5.final_states(["Drama"], 1)
