"""Prompts read on from what was read before: as whole prompts give, and nothing of others moves."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from llmrec.errors import DataError
from llmrec.language.continuing import continue_prompts, forget_prompts
from llmrec.language.heads import CategoryHead, Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.language.prefixes import CONTINUED, SUFFIX, PrefixCache, prefix_file
from llmrec.language.tokenization import Prompt, pooled_position
from tests.language.tiny_models import LABELS, byte_level_tokenizer, save_llama

HEADER = "What one viewer takes, in order:"
ticks = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3)


def prompt(events: list[list[str]], person: str = "a", is_trial: bool = False) -> Prompt:
    parts = (pooled_position([f" {label}" for label in tick]) for tick in events)
    return Prompt(HEADER + "".join(parts), person, is_trial)


@pytest.fixture
def live(llama_folder: Path) -> LanguageModel:
    """A model with a category head after one of its two layers."""
    model = LanguageModel.load(str(llama_folder), device="cpu")
    torch.manual_seed(1)
    model.category_head = CategoryHead(32, 8, depth=1)
    torch.nn.init.normal_(model.category_head.up.weight)
    return model


def scores(model: LanguageModel, *prompts: str) -> np.ndarray:
    return model.score_categories(prompts, Verbalizer(LABELS, model.encode))


def fresh(model: LanguageModel, *prompts: str) -> np.ndarray:
    """Scores of whole prompts, with nothing kept of them."""
    kept, model.prefixes = model.prefixes, None
    model.prompt_cache.clear()
    found = scores(model, *prompts)
    model.prompt_cache.clear()
    model.prefixes = kept
    return found


@pytest.mark.parametrize("depth", [None, 1, 2])
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("float16", 2e-2)])
def test_appended_events_give_the_scores_of_the_whole_prompt(
    live: LanguageModel, precision: str, bound: float, depth: int | None
) -> None:
    assert live.category_head is not None
    live.category_head.depth = depth

    @settings(max_examples=15, deadline=None)
    @given(st.lists(ticks, min_size=1, max_size=12), st.data())
    def check(events: list[list[str]], data: st.DataObject) -> None:
        continue_prompts(live, precision=precision)  # type: ignore[arg-type]
        n = 0
        while n < len(events):
            n += data.draw(st.integers(1, 4))
            text = prompt(events[:n])
            expected = fresh(live, text)
            np.testing.assert_allclose(scores(live, text), expected, atol=bound)

    check()


def test_without_a_head_label_logits_are_continued_too(llama_folder: Path) -> None:
    model = LanguageModel.load(str(llama_folder), device="cpu")
    prefixes = continue_prompts(model, precision="float32")
    for n in range(1, 5):
        text = prompt([["Drama"], ["Comedy", "Drama"], ["Drama 5"], ["Comedy"]][:n])
        np.testing.assert_allclose(scores(model, text), fresh(model, text), atol=1e-5)
    assert prefixes.counts[CONTINUED] == 3


def test_only_what_is_new_goes_through_the_model(live: LanguageModel) -> None:
    prefixes = continue_prompts(live, precision="float32")
    lengths = []
    hook = (
        live.model.get_decoder()
        .layers[0]
        .register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    )
    scores(live, prompt([["Drama"]] * 9))
    scores(live, prompt([["Drama"]] * 9 + [["Comedy"]]))
    scores(live, prompt([["Drama"]] * 9 + [["Comedy", "Drama"], ["Drama"]]))
    hook.remove()
    assert lengths[1:] == [1, 2]
    reading = prefixes.reading("a")
    assert reading is not None
    assert (reading.n_positions - reading.n_continued, reading.anew) == (2, "")
    assert "positions of the prompt were read before" in str(reading)


def test_a_prompt_whose_beginning_changes_is_read_anew_and_says_so(live: LanguageModel) -> None:
    prefixes = continue_prompts(live, precision="float32")
    scores(live, prompt([["Comedy"]] + [["Drama"]] * 60))
    merged = prompt([["Drama", "Comedy"]] + [["Drama"]] * 60)
    np.testing.assert_allclose(scores(live, merged), fresh(live, merged), atol=1e-5)
    reading = prefixes.reading("a")
    assert reading is not None
    assert "its beginning changed" in str(reading)
    assert sum(prefixes.counts.values()) == 2
    assert prefixes.counts[CONTINUED] == 0


def test_people_of_a_batch_are_continued_each_from_their_own(live: LanguageModel) -> None:
    prefixes = continue_prompts(live, precision="float32")
    before = [prompt([[LABELS[n]]] * (n + 3), str(n)) for n in range(4)]
    scores(live, *before)
    held = {person: prefix for person, prefix in prefixes._held.items()}
    after = [prompt([[LABELS[n]]] * (n + 3) + [["Drama"]], str(n)) for n in (2, 0)]
    mixed = [after[0], prompt([["Comedy"]], "new"), "no Prompt of anybody", after[1], before[3]]
    np.testing.assert_allclose(scores(live, *mixed), fresh(live, *mixed), atol=1e-5)
    assert all(prefixes._held[person] is held[person] for person in ("1", "3"))
    assert prefixes.n_people == 5


def test_a_prompt_that_leaves_events_out_changes_nothing_that_is_held(live: LanguageModel) -> None:
    prefixes = continue_prompts(live, precision="float32")
    scores(live, prompt([["Drama"], ["Comedy"], ["Drama"]]))
    held = prefixes._held["a"]
    trial = prompt([["Drama"], ["Drama"]], is_trial=True)
    np.testing.assert_allclose(scores(live, trial), fresh(live, trial), atol=1e-5)
    assert prefixes._held["a"] is held


def test_the_least_recently_used_people_are_dropped_beyond_the_limit(live: LanguageModel) -> None:
    text = prompt([["Drama"]] * 5)
    prefixes = continue_prompts(live)
    scores(live, text)
    size = prefixes.n_bytes
    assert size == 2 * 2 * 8 * 2 * prefixes.reading("a").n_positions  # type: ignore[union-attr]
    prefixes = continue_prompts(live, max_bytes=2 * size)
    for person in ("a", "b", "a", "c"):
        live.prompt_cache.clear()
        scores(live, prompt([["Drama"]] * 5, person))
    assert [*prefixes._held] == ["a", "c"]
    assert prefixes.n_bytes == 2 * size
    assert continue_prompts(live, max_bytes=size - 1).n_people == 0
    scores(live, prompt([["Drama"]] * 5, "d"))
    assert live.prefixes is not None
    assert (live.prefixes.n_people, live.prefixes.n_bytes) == (0, 0)


def test_what_has_no_room_is_written_and_read_again(live: LanguageModel, tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    options = {"max_bytes": 0, "folder": folder, "precision": "float32"}
    prefixes = continue_prompts(live, **options)  # type: ignore[arg-type]
    scores(live, prompt([["Drama", "Comedy"]] * 5))
    assert prefixes.n_people == 0
    assert [path.name.endswith(SUFFIX) for path in folder.iterdir()] == [True]
    assert folder.stat().st_mode & 0o077 == 0
    text = prompt([["Drama", "Comedy"]] * 5 + [["Drama"]])
    again = continue_prompts(live, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(scores(live, text), fresh(live, text), atol=1e-5)
    assert again.counts == {CONTINUED: 1}
    forget_prompts(live, "a")
    assert [*folder.iterdir()] == []


def test_files_of_another_model_and_damaged_ones_are_dropped(
    live: LanguageModel, tmp_path: Path
) -> None:
    text = prompt([["Drama"]] * 5)
    options = {"max_bytes": 0, "folder": tmp_path}
    continue_prompts(live, **options)  # type: ignore[arg-type]
    scores(live, text)
    other = LanguageModel.load(str(save_llama(tmp_path / "other", hidden_size=64)), device="cpu")
    prefixes = continue_prompts(other, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(scores(other, text), fresh(other, text), atol=1e-5)
    assert "of another model" in prefixes.reading("a").anew  # type: ignore[union-attr]
    (file,) = tmp_path.glob(f"*{SUFFIX}")
    for content in (b"", file.read_bytes()[:-100], b"\xff" * 200):
        file.write_bytes(content)
        other.prompt_cache.clear()
        scores(other, text)
        assert "damaged" in prefixes.reading("a").anew  # type: ignore[union-attr]


def test_the_oldest_files_go_beyond_the_limit_of_the_folder(
    live: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"1" * 100_000)
    continue_prompts(live, max_bytes=0, folder=tmp_path, max_folder_bytes=15_000)
    for person in "abcdefgh":
        live.prompt_cache.clear()
        scores(live, prompt([["Drama"]] * 5, person))
    files = [*tmp_path.glob(f"*{SUFFIX}")]
    assert 1 <= len(files) < 8
    assert sum(file.stat().st_size for file in files) <= 15_000
    assert prefix_file(tmp_path, "h") in files
    assert (tmp_path / "mine.safetensors").exists()


def test_nothing_of_a_forgotten_person_is_left(live: LanguageModel) -> None:
    prefixes = continue_prompts(live)
    scores(live, prompt([["Drama"]], "a"), prompt([["Comedy"]], "b"))
    forget_prompts(live, "a")
    assert [*prefixes._held] == ["b"]
    assert prefixes.reading("a") is None
    assert not live.prompt_cache._states


def test_what_is_read_while_somebody_is_forgotten_is_not_held(
    live: LanguageModel, tmp_path: Path
) -> None:
    def states(prompts: list[str]) -> torch.Tensor:
        forget_prompts(live, "a")
        return torch.zeros(len(prompts), 2)

    live.prompt_cache.states([prompt([["Drama"]])], states)
    assert not live.prompt_cache._states

    class ForgetsFirst:
        def __enter__(self) -> None:
            prefixes._n_forgotten += 1

        def __exit__(self, *error: object) -> None:
            pass

    prefixes = continue_prompts(live, max_bytes=0, folder=tmp_path)
    prefixes._folder_lock = ForgetsFirst()  # type: ignore[assignment]
    scores(live, prompt([["Drama"]]))
    assert [*tmp_path.iterdir()] == []


def test_threads_that_read_at_once_get_what_one_alone_gets(live: LanguageModel) -> None:
    texts = [prompt([[LABELS[n % 3]]] * n, str(n % 2)) for n in range(1, 9)]
    expected = fresh(live, *texts)
    continue_prompts(live, precision="float32", max_bytes=20_000)
    found: dict[int, np.ndarray] = {}

    def ask(place: int) -> None:
        torch.set_num_threads(1)
        found[place] = scores(live, texts[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, row in enumerate(expected):
        np.testing.assert_allclose(found[place][0], row, atol=1e-5)


def test_t5_reads_again_and_says_so(t5: LanguageModel) -> None:
    t5.prompt_cache.clear()
    prefixes = continue_prompts(t5)
    for n in (2, 3):
        text = prompt([["Drama"]] * n)
        found = scores(t5, text)
        assert prefixes.reading("a").anew == "an encoder reads whole prompts"  # type: ignore[union-attr]
        assert (found == fresh(t5, text)).all()
    assert (prefixes.n_people, prefixes.counts[CONTINUED]) == (0, 0)
    t5.prefixes = None


def test_windows_of_attention_are_continued_beyond_their_length() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 4}
    kinds = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    tokenizer = byte_level_tokenizer()
    config = Gemma3TextConfig(**sizes, **heads, **kinds, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    gemma = Gemma3ForCausalLM(config).eval()
    model = LanguageModel("gemma", gemma, tokenizer)
    continue_prompts(model, precision="float32")
    for n in (6, 7, 12):
        text = prompt([["Drama", "Comedy"], ["Drama"], ["Comedy"]] * n)
        np.testing.assert_allclose(scores(model, text), fresh(model, text), atol=1e-5)
    assert model.prefixes is not None
    assert model.prefixes.counts[CONTINUED] == 2


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"max_bytes": -1}])
def test_settings_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(DataError):
        PrefixCache("x", **options)  # type: ignore[arg-type]
