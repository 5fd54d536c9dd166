"""Faults of a training, each injected into an otherwise good one of a tiny model.

A fault changes files in a `Bench`'s folder or code through its ``patch``, and gives the flags of
lora.py that it needs. What it expects is the beginning of the way to its cause: words that the
error's message holds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from llmrec.data import splits
from llmrec.data.dataset import Dataset
from llmrec.data.files import with_values_hash
from llmrec.data.periods import Window
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_timelines, with_catalog_of_training
from llmrec.language import codec as codecs
from llmrec.language.codec import Codec, codec_for
from llmrec.language.model import LanguageModel
from llmrec.training import dataset as examples_on_disk
from llmrec.training import objective, run, trainer
from llmrec.training.dataset import DatasetManifest, load_examples, save_examples
from llmrec.training.objective import ReadPositions, TimelineModel
from tests.language.tiny_models import save_llama

Flags = Sequence[object]
Columns = dict[str, list[Any]]


@dataclass
class Bench:
    """A folder with a log, a model and its examples, of which a fault may change anything.

    Attributes
    ----------
    folder
        Holds ``tiny`` (the log), ``llama`` (the model) and ``examples``.
    patch
        Undone after the case.
    start
        Calls a recipe with flags.
    processes
        Killed after the case.
    """

    folder: Path
    patch: pytest.MonkeyPatch
    start: Callable[..., Any]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def examples(self) -> Path:
        return self.folder / "examples"

    def data(self) -> Dataset:
        return with_catalog_of_training(load_dataset(self.folder / "tiny"))

    def save(
        self,
        change: Callable[[list[list[Window]], list[Window]], tuple[Any, Any]],
    ) -> None:
        """Make the examples again, of the windows that a change gives."""
        manifest = DatasetManifest.load(self.examples)
        data = self.data()
        model = LanguageModel.load(str(self.folder / "llama"), device="cpu")
        codec = codec_for(data, model, template=manifest.prompt, budget=manifest.budget)
        people, validation = change(*split_timelines(data))
        prior = examples_on_disk.DecayedDirichlet(**manifest.counting)
        save_examples(
            self.examples, data, codec, prior, people, validation, tokenizer=manifest.tokenizer
        )

    def rewrite(self, change: Callable[[Columns], None], part: str = "train") -> None:
        """Change the columns of the examples, as a faulty script would have written them."""
        manifest, parts = load_examples(self.examples)
        tables = {
            name: (table.with_format(None)[:], table.features) for name, table in parts.items()
        }
        columns = {name: list(values) for name, values in tables[part][0].items()}
        change(columns)
        tables[part] = (columns, tables[part][1])
        made = {
            name: datasets.Dataset.from_dict(dict(values), features=features)
            for name, (values, features) in tables.items()
        }
        shutil.rmtree(self.examples)
        examples_on_disk.write_parts(self.examples, made, manifest)

    def edit_manifest(self, **values: Any) -> None:
        path = self.examples / "manifest.json"
        path.write_text(json.dumps(with_values_hash(json.loads(path.read_text()) | values)))

    def edit_log(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Change the log, and make the examples of it."""
        path = self.folder / "tiny" / "tiny.inter"
        change(pd.read_csv(path, sep="\t")).to_csv(path, sep="\t", index=False)
        self.make_examples()

    def make_examples(self, *flags: object) -> None:
        shutil.rmtree(self.examples)
        self.start(
            "make_dataset", "--data", "tiny", "--model", "llama", "--out", "examples", *flags
        )

    def edit_weights(self, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
        path = self.folder / "llama" / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    def edit_json(self, name: str, **values: Any) -> None:
        path = self.folder / "llama" / name
        path.write_text(json.dumps(with_values_hash(json.loads(path.read_text()) | values)))

    def interrupt(self) -> None:
        """Start a training and stop it after its second step, as Ctrl-C does."""

        def stop(self: Any, *arguments: Any, **_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer.BatchTrainer, "training_step", stop)
            with pytest.raises(KeyboardInterrupt):
                self.start("lora")


Fault = Callable[[Bench], Flags | None]
FAULTS: list[tuple[str, str, Fault]] = []


def fault(message: str) -> Callable[[Fault], Fault]:
    def add(function: Fault) -> Fault:
        FAULTS.append((function.__name__, message, function))
        return function

    return add


# Data past the holdout, under another name, moved or edited.


def _add_tests(bench: Bench, is_after: bool) -> None:
    """Train on test windows, too: those from before the holdout's cutoff, or from after it."""
    data = bench.data()
    cutoff = splits.holdout_cutoff(data.log, data.period)
    tests = {
        window.history.user_id: [window]
        for window in splits.split_windows(data)["test"]
        if (window.target.period.end > cutoff) == is_after
    }
    # This check at the making refuses them, too.
    bench.patch.setattr(examples_on_disk, "check_windows", lambda *_: None)
    bench.save(
        lambda people, held_out: (
            [[*windows, *tests.get(windows[-1].history.user_id, [])] for windows in people],
            held_out,
        )
    )


@fault("the holdout begins at")
def windows_whose_target_ends_after_the_cutoff(bench: Bench) -> None:
    _add_tests(bench, is_after=True)


@fault("training target that ends at their event")
def validation_windows_among_the_training_windows(bench: Bench) -> None:
    bench.save(
        lambda _, held_out: (split_timelines(bench.data(), include_validation=True)[0], held_out)
    )


@fault("from after the cutoff, there twice")
def validation_windows_trained_on_and_not_said_so(bench: Bench) -> None:
    bench.make_examples("--include-validation")
    bench.edit_manifest(validated=False)


@fault("from after the cutoff, there twice")
def test_windows_among_the_training_windows(bench: Bench) -> None:
    _add_tests(bench, is_after=False)


def _copied(frame: pd.DataFrame, part: float = 1.0, later: int = 0) -> pd.DataFrame:
    """Add the first person again under another name: a part of the events, or some more."""
    own = frame[frame["user_id:token"] == frame["user_id:token"].iloc[0]]
    twin = own.sample(frac=part, random_state=0).assign(**{"user_id:token": "twin"})
    more = twin.tail(later).assign(**{"timestamp:float": own["timestamp:float"].max() + 86_400})
    return pd.concat([frame, twin, more])


@fault("one person under two names")
def a_person_twice_under_two_names(bench: Bench) -> None:
    bench.edit_log(_copied)


@fault("one person under two names")
def nearly_the_same_person_under_another_name(bench: Bench) -> None:
    bench.edit_log(lambda frame: _copied(frame, part=0.9))


@fault("one person under two names")
def the_future_of_a_validation_person_in_a_twins_training_prompt(bench: Bench) -> None:
    bench.edit_log(lambda frame: _copied(frame, later=20))


@fault("there twice")
def rows_that_are_there_twice(bench: Bench) -> None:
    def twice(columns: Columns) -> None:
        for values in columns.values():
            values.insert(1, values[0])

    bench.rewrite(twice)


@fault("of a person that the log does not have|lack")
def rows_under_another_name(bench: Bench) -> None:
    def add(columns: Columns) -> None:
        for name, values in columns.items():
            values.append("somebody else" if name == "user" else values[0])

    bench.rewrite(add)


@fault("of a person that the log does not have|there twice")
def validation_rows_in_the_training_part(bench: Bench) -> None:
    _, parts = load_examples(bench.examples)
    rows = parts["validation"].with_format(None)[:]

    def add(columns: Columns) -> None:
        for name, values in columns.items():
            values += list(rows[name])

    bench.rewrite(add)


@fault("lack")
def windows_of_a_person_that_are_left_out(bench: Bench) -> None:
    def cut(columns: Columns) -> None:
        for name in ("back", "taken", "log_prior", "shares"):
            columns[name][3] = columns[name][3][1:]

    bench.rewrite(cut)


def _shuffle(name: str) -> Callable[[Columns], None]:
    """Give each person the values of the next one with as many read positions or more."""

    def change(columns: Columns) -> None:
        old = list(columns[name])
        for row, values in enumerate(old):
            other = old[(row + 1) % len(old)]
            places = np.arange(len(values)) % len(other)
            columns[name][row] = [other[place] for place in places]

    return change


@fault("say nothing about their histories")
def shares_shuffled_among_people(bench: Bench) -> None:
    bench.rewrite(_shuffle("shares"))


@fault("say nothing about their histories")
def validation_shares_shuffled_among_people(bench: Bench) -> None:
    bench.rewrite(_shuffle("shares"), "validation")


@fault("say nothing about their histories|log_prior is not what the log gives")
def a_prior_of_other_people(bench: Bench) -> None:
    bench.rewrite(_shuffle("log_prior"))


@fault("shares is not what the log gives")
def shares_of_the_next_read_position(bench: Bench) -> None:
    bench.rewrite(lambda c: c.update(shares=[[*rows[1:], rows[-1]] for rows in c["shares"]]))


@fault("log_prior is not what the log gives")
def a_prior_of_the_read_position_before(bench: Bench) -> None:
    bench.rewrite(lambda c: c.update(log_prior=[[rows[0], *rows[:-1]] for rows in c["log_prior"]]))


@fault("prompt is not what the log gives")
def prompts_that_hold_their_target(bench: Bench) -> None:
    bench.rewrite(lambda c: c.update(prompt=list(c["request"])))


@fault("overlaps its cutoff")
def targets_of_the_last_period_of_the_history(bench: Bench) -> None:
    def shift(window: Window, by: int) -> Window:
        target = replace(
            window.target, start=window.target.start + by, stop=window.target.stop + by
        )
        return replace(window, target=target)

    bench.save(lambda people, held_out: ([[shift(w, -5) for w in p] for p in people], held_out))


@fault("ends before the period of its target")
def targets_of_one_period_later(bench: Bench) -> None:
    def later(windows: list[Window]) -> list[Window]:
        pairs = zip(windows, windows[10:], strict=False)
        return [replace(one, target=other.target) for one, other in pairs]

    bench.save(lambda people, held_out: ([p for p in map(later, people) if p], held_out))


@fault("changed since it was written")
def examples_edited_after_they_were_made(bench: Bench) -> None:
    manifest = (bench.examples / "manifest.json").read_bytes()
    bench.rewrite(lambda c: c.update(line=[line.replace("1", "2") for line in c["line"]]))
    (bench.examples / "manifest.json").write_bytes(manifest)


@fault("changed since it was written, or manifest.json is that of other examples")
def a_manifest_of_other_examples(bench: Bench) -> None:
    manifest = (bench.examples / "manifest.json").read_bytes()
    bench.make_examples("--people", 20)
    (bench.examples / "manifest.json").write_bytes(manifest)


@fault("categories in another order")
def categories_in_another_order(bench: Bench) -> None:
    names = json.loads((bench.examples / "manifest.json").read_text())["categories"]
    bench.edit_manifest(categories=names[::-1])


@fault("the data changed")
def a_log_that_changed_since(bench: Bench) -> None:
    path = bench.folder / "tiny" / "tiny.inter"
    pd.read_csv(path, sep="\t").iloc[:-3].to_csv(path, sep="\t", index=False)


# Labels that are masked wrongly, or at another position.


def _first_shares(bench: Bench, change: Callable[[np.ndarray], Any], name: str = "shares") -> None:
    def edit(columns: Columns) -> None:
        values = np.asarray(columns[name][0], dtype=np.float64)
        change(values)
        columns[name][0] = values.tolist()

    bench.rewrite(edit)


@fault("shares are no shares of a whole")
def shares_that_do_not_sum_to_1(bench: Bench) -> None:
    _first_shares(bench, lambda values: np.multiply(values, 2, out=values))


@fault("shares are no shares of a whole")
def shares_below_0(bench: Bench) -> None:
    def move(values: np.ndarray) -> None:
        values[0] = [-0.5, 1.5, 0, 0, 0]

    _first_shares(bench, move)


@fault("shares are no shares of a whole")
def a_read_position_whose_labels_are_all_masked(bench: Bench) -> None:
    _first_shares(bench, lambda values: values[0].fill(0))


@fault("shares holds a value that is not finite")
def shares_that_are_no_numbers(bench: Bench) -> None:
    _first_shares(bench, lambda values: values[0].fill(np.nan))


@fault("log_prior holds a value that is not finite")
def a_category_that_counting_holds_impossible(bench: Bench) -> None:
    def move(values: np.ndarray) -> None:
        values[0, 0] = -np.inf

    _first_shares(bench, move, "log_prior")


@fault("log_prior is of weights that sum to")
def a_prior_that_is_not_normalized(bench: Bench) -> None:
    _first_shares(bench, lambda values: np.add(values, 1, out=values), "log_prior")


@fault("taken holds titles")
def title_numbers_outside_of_the_manifest(bench: Bench) -> None:
    bench.rewrite(lambda c: c["taken"][0].__setitem__(0, [10_000]))


@fault("back is .*, which does not count down to 0|back is not what the log gives")
def read_positions_one_tick_too_early(bench: Bench) -> None:
    bench.rewrite(lambda c: c.update(back=[[n + 1 for n in row] for row in c["back"]]))


@fault("back is not what the log gives")
def read_positions_that_have_seen_the_first_event_of_the_target(bench: Bench) -> None:
    bench.rewrite(lambda c: c.update(back=[[max(0, n - 1) for n in row] for row in c["back"]]))


def _replace_states(bench: Bench, by: int) -> None:
    states = TimelineModel.states

    def moved(self: TimelineModel, prompts: Any, read: ReadPositions) -> torch.Tensor:
        longest = torch.tensor([len(prompt) for prompt in prompts])[read.row] - 1
        back = (read.back + by).clamp(min=0).minimum(longest)
        return states(self, prompts, replace(read, back=back))

    bench.patch.setattr(TimelineModel, "states", moved)


@fault("hidden state at read position .* read at another position")
def states_read_one_position_too_early(bench: Bench) -> None:
    _replace_states(bench, 1)


@fault("hidden state at read position .* sees what comes later")
def states_read_one_position_too_late(bench: Bench) -> None:
    _replace_states(bench, -1)


@fault("hidden state at read position .* sees padding")
def padding_that_is_attended(bench: Bench) -> None:
    def everything(mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"attention_mask": torch.ones_like(mask)}

    bench.patch.setattr(objective, "_mask_inputs", everything)


def _replace_line_loss(bench: Bench, change: Callable[..., torch.Tensor]) -> Flags:
    line_loss = TimelineModel.line_loss
    bench.patch.setattr(
        TimelineModel, "line_loss", lambda self, *batch: change(self, line_loss, *batch)
    )
    return ("--line_share", 0.5)


@fault("the loss of lines is .* it holds other positions")
def a_loss_over_the_prompt(bench: Bench) -> Flags:
    def whole(model: Any, loss: Any, requests: Any, lines: Any) -> torch.Tensor:
        prompts = [[part[0] for bag in request[-3:] for part in bag] for request in requests]
        short = [request[:-3] for request in requests]
        return loss(model, short, [[*p, *line] for p, line in zip(prompts, lines, strict=True)])

    return _replace_line_loss(bench, whole)


@fault("the loss of lines is .* lacks some")
def an_end_that_is_masked_because_it_is_the_padding(bench: Bench) -> Flags:
    entropy = objective.cross_entropy

    def without_end(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        end = LanguageModel.load("llama", device="cpu").tokenizer.pad_token_id
        return entropy(scores, labels, ignore_index=end)

    bench.patch.setattr(objective, "cross_entropy", without_end)
    return ("--line_share", 0.5)


@fault("the loss of lines is")
def line_labels_one_token_late(bench: Bench) -> Flags:
    entropy = objective.cross_entropy
    bench.patch.setattr(
        objective, "cross_entropy", lambda scores, labels: entropy(scores, labels.roll(1))
    )
    return ("--line_share", 0.5)


@fault("the loss of lines is")
def padding_that_is_learned_as_text(bench: Bench) -> Flags:
    def padded(model: Any, loss: Any, requests: Any, lines: Any) -> torch.Tensor:
        width = max(map(len, lines))
        filled = [[*line, *[model.end] * (width - len(line))] for line in lines]
        return loss(model, requests, filled)

    return _replace_line_loss(bench, padded)


@fault("the loss of lines is nan")
def a_line_loss_whose_labels_are_all_masked(bench: Bench) -> Flags:
    entropy = objective.cross_entropy
    bench.patch.setattr(
        objective,
        "cross_entropy",
        lambda scores, labels: entropy(scores, torch.full_like(labels, -100)),
    )
    return ("--line_share", 0.5)


@fault("training starts from a loss of")
def a_category_head_that_is_not_new(bench: Bench) -> None:
    build = run.CategoryHead

    def used(*arguments: Any) -> Any:
        head = build(*arguments)
        torch.nn.init.normal_(head.up.weight)
        return head

    bench.patch.setattr(run, "CategoryHead", used)


# LoRA, gradients and weights.


def _freeze(bench: Bench, is_frozen: Callable[[str], bool]) -> None:
    add = run.add_lora

    def frozen(*arguments: Any, **options: Any) -> Any:
        adapted = add(*arguments, **options)
        for name, values in adapted.named_parameters():
            if ".lora_" in name and is_frozen(name):
                values.requires_grad_(False)
        return adapted

    bench.patch.setattr(run, "add_lora", frozen)


@fault("is frozen")
def frozen_lora(bench: Bench) -> None:
    _freeze(bench, lambda name: True)


@fault("lora_A is frozen")
def the_first_half_of_lora_frozen(bench: Bench) -> None:
    _freeze(bench, lambda name: "lora_A" in name)


@fault("lora_B is frozen")
def the_second_half_of_lora_frozen(bench: Bench) -> None:
    _freeze(bench, lambda name: "lora_B" in name)


@fault(r"layers\.3\..*is frozen")
def one_layer_of_lora_frozen(bench: Bench) -> None:
    _freeze(bench, lambda name: ".layers.3." in name)


@fault("match nothing")
def targets_that_match_nothing(bench: Bench) -> Flags:
    return ("--lora.targets", "[query]")


@fault(r"lora\.targets: there is no LoRA in \['v_porj'\]")
def a_misspelled_target_among_others(bench: Bench) -> Flags:
    return ("--lora.targets", "[q_proj, v_porj]")


@fault("the model has 6 layers")
def layers_that_the_model_lacks(bench: Bench) -> Flags:
    return ("--lora.layers", "[9]")


@fault("get a gradient of 0|get no gradient")
def states_that_are_detached(bench: Bench) -> None:
    states = TimelineModel.states
    bench.patch.setattr(TimelineModel, "states", lambda self, *batch: states(self, *batch).detach())


def _replace_loss(bench: Bench, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    forward = TimelineModel.forward

    def changed(self: TimelineModel, *arguments: Any, **batch: Any) -> dict[str, torch.Tensor]:
        outputs = forward(self, *arguments, **batch)
        return outputs | {"loss": change(outputs["loss"])}

    bench.patch.setattr(TimelineModel, "forward", changed)


@fault("the loss is detached")
def a_loss_that_is_detached(bench: Bench) -> None:
    _replace_loss(bench, torch.Tensor.detach)


@fault("get a gradient of 0")
def a_loss_of_weight_0(bench: Bench) -> None:
    _replace_loss(bench, lambda loss: loss * 0)


@fault(r"title_embeddings.* a gradient of 0|gradient of 0, such as title_embeddings")
def titles_whose_loss_has_weight_0(bench: Bench) -> Flags:
    return ("--titles.weight", 0)


def _hook_gradients(bench: Bench, factor: float) -> None:
    build = run.TimelineModel

    def hooked(*arguments: Any, **options: Any) -> Any:
        model = build(*arguments, **options)
        model.category_head.down.weight.register_hook(lambda gradient: gradient * factor)
        return model

    bench.patch.setattr(run, "TimelineModel", hooked)


@fault("get a gradient that is not finite, such as category_head")
def gradients_that_are_no_numbers(bench: Bench) -> None:
    _hook_gradients(bench, float("nan"))


@fault("get a gradient that is not finite, such as category_head")
def gradients_that_are_infinite(bench: Bench) -> None:
    _hook_gradients(bench, float("inf"))


@fault("get a gradient of 0, such as category_head")
def gradients_that_vanish(bench: Bench) -> None:
    _hook_gradients(bench, 0.0)


@fault("holds values that are not finite")
def a_base_weight_that_is_no_number(bench: Bench) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")

    bench.edit_weights(spoil)


@fault("the loss is nan before training, in torch.float16: choose dtype: bfloat16")
def an_overflow_in_half_precision(bench: Bench) -> Flags:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        for name, values in tensors.items():
            if "mlp" in name:
                values *= 500

    bench.edit_weights(enlarge)
    bench.patch.setattr(trainer, "check_device", lambda config: None)  # as if it were on a GPU
    return ("--dtype", "float16")


# Rates, schedule and sizes.


@fault("learning_rate 1 is too high")
def a_learning_rate_1000_times_too_high(bench: Bench) -> Flags:
    return ("--learning_rate", 1.0)


@fault("learning_rate 1e-06 is too low")
def a_learning_rate_1000_times_too_low(bench: Bench) -> Flags:
    return ("--learning_rate", "1e-6")


@fault("head_learning_rate 1 is too high")
def a_rate_of_the_head_1000_times_too_high(bench: Bench) -> Flags:
    return ("--head_learning_rate", 1.0)


@fault("head_learning_rate 1e-06 is too low")
def a_rate_of_the_head_1000_times_too_low(bench: Bench) -> Flags:
    return ("--head_learning_rate", "1e-6")


@fault(r"titles\.rate 3 is too high")
def a_rate_of_titles_1000_times_too_high(bench: Bench) -> Flags:
    return ("--titles.rate", 3.0)


@fault(r"titles\.rate 3e-06 is too low")
def a_rate_of_titles_1000_times_too_low(bench: Bench) -> Flags:
    return ("--titles.rate", "3e-6")


@fault(r"generation\.rate 0.5 is too high")
def a_rate_of_lines_1000_times_too_high(bench: Bench) -> Flags:
    return ("--generation.rate", 0.5)


@fault(r"generation\.rate 5e-07 is too low")
def a_rate_of_lines_1000_times_too_low(bench: Bench) -> Flags:
    return ("--generation.rate", "5e-7")


@fault("before it has warmed up")
def a_warm_up_longer_than_the_run(bench: Bench) -> Flags:
    return ("--warmup_steps", 100_000, "--epochs", 9)


@fault("weight_decay is 100")
def an_absurd_weight_decay(bench: Bench) -> Flags:
    return ("--weight_decay", 100.0)


@fault("batch_positions is 0")
def a_batch_of_nothing(bench: Bench) -> Flags:
    return ("--batch_positions", 0)


@fault("an epoch would be one step")
def a_batch_of_everything(bench: Bench) -> Flags:
    return ("--batch_positions", 10_000_000)


@fault("epochs is 0")
def no_epochs(bench: Bench) -> Flags:
    return ("--epochs", 0)


@fault(r"the loss is .* training diverges")
def a_training_that_diverges(bench: Bench) -> None:
    # Ten times the steps of the optimizer, which no config could ask for.
    step = torch.optim.AdamW.step

    def large(self: Any, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = 3.0
        return step(self, closure)

    bench.patch.setattr(torch.optim.AdamW, "step", large)


# Templates and tokenizers.


def _save_tokenizer(bench: Bench, change: Callable[[dict[str, Any]], None], **special: Any) -> None:
    folder = bench.folder / "llama"
    settings = json.loads((folder / "tokenizer.json").read_text())
    change(settings)
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


ENDS = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}


@fault("the examples were counted with tokenizer")
def a_tokenizer_of_as_many_tokens_with_other_ids(bench: Bench) -> None:
    def swap(settings: dict[str, Any]) -> None:
        vocabulary = settings["model"]["vocab"]
        vocabulary["D"], vocabulary["C"] = vocabulary["C"], vocabulary["D"]

    _save_tokenizer(bench, swap, **ENDS)


@fault("tokens and the model .* embeddings: it is another model's")
def a_tokenizer_of_another_model(bench: Bench) -> None:
    shutil.rmtree(bench.folder / "llama")
    save_llama(
        bench.folder / "llama", num_hidden_layers=7, max_position_embeddings=1024, vocab_size=2000
    )


@fault("the end token of llama's tokenizer is 0")
def another_end_token(bench: Bench) -> None:
    other = {"eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"}
    _save_tokenizer(bench, lambda settings: None, **other)


@fault("the end token of llama's tokenizer is None")
def no_end_token(bench: Bench) -> None:
    _save_tokenizer(bench, lambda settings: None, pad_token="<|im_end|>")


@fault("is not what the log gives .* rendered in another way")
def a_template_that_changed_since(bench: Bench) -> None:
    folder = bench.folder / "prompts"
    shutil.copytree(codecs.prompts_folder(), folder)
    text = (folder / "forecast-v3.jinja").read_text()
    (folder / "forecast-v3.jinja").write_text(text.replace("What one", "What a"))
    bench.patch.setattr(codecs, "prompts_folder", lambda: folder)
    codecs.load_template.cache_clear()


@fault("have prompts of .* and the config asks for")
def another_version_of_the_template(bench: Bench) -> Flags:
    return ("--template", "forecast-v1")


@fault("is not what the log gives")
def other_words_for_people_and_items(bench: Bench) -> None:
    def renamed(*arguments: Any, **options: Any) -> Codec:
        return Codec(*arguments, **options | {"noun": "songs"})

    bench.patch.setattr(codecs, "Codec", renamed)


@fault("have the same embedding")
def labels_of_the_same_tokens(bench: Bench) -> None:
    path = bench.folder / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("Action", "XYZ").replace("Comedy", "ZYX"))
    bench.make_examples()


@fault("takes 64: make the examples with a smaller --budget")
def a_budget_beyond_the_models_positions(bench: Bench) -> None:
    bench.edit_json("config.json", max_position_embeddings=64)


# Folders of runs.

_HOLD = (
    "import sys, time; from pathlib import Path; "
    "from llmrec.training.checkpoints import only_training_in\n"
    "with only_training_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def hold_folder(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds a run's folder, as a training does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@fault("another training is writing to")
def two_trainings_in_one_folder(bench: Bench) -> None:
    process = hold_folder(bench.folder / "out" / "run")
    bench.processes.append(process)


@fault("learning_rate 0.001, not 0.002")
def a_run_that_continues_with_another_config(bench: Bench) -> Flags:
    bench.interrupt()
    return ("--learning_rate", "2e-3")


@fault("was started with another set of examples")
def a_run_that_continues_on_other_examples(bench: Bench) -> None:
    bench.interrupt()
    # Lines of another seed: batches are as many as before.
    bench.make_examples("--seed", 1)


@fault("was started with another base model")
def a_run_that_continues_on_another_base_model(bench: Bench) -> None:
    bench.interrupt()

    def move(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][5, 7] += 1e-3

    bench.edit_weights(move)
