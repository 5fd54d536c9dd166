"""Exact resume, kill -9, a full disk, learning rates, and errors that name their cause."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from llmrec.errors import TrainingError
from llmrec.language import heads
from llmrec.language.heads import CategoryHead, TitleEmbeddings
from llmrec.training import checkpoints
from llmrec.training.checkpoints import latest_checkpoint, prune_checkpoints, save_checkpoint
from llmrec.training.config import TrainingConfig
from llmrec.training.loop import TrainingHistory, train
from llmrec.training.trainer import head_rates, parameter_rates


class LinearHead(CategoryHead):
    """One linear map, in place of two and label embeddings."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = (nn.Parameter(torch.empty(shape)) for shape in ((1, width), (1,)))

    def forward(self, states: Tensor) -> Tensor:  # type: ignore[override]
        return linear(states, self.weight, self.bias)


class Regression(nn.Module):
    """A linear regression: ``adapter`` and ``category_head`` are trained, ``frozen`` is not."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.adapter = nn.Linear(3, 4)
        self.category_head = LinearHead(4)
        self.frozen = nn.Linear(3, 4).requires_grad_(False)
        with torch.no_grad():
            for values in self.parameters():
                values.copy_(torch.randn(values.shape, generator=generator))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        predicted = self.category_head(self.drop(self.adapter(x) + self.frozen(x)))[:, 0]
        loss = (predicted - y).square().mean()
        return {"loss": loss, "read_loss": loss.detach()}


class Points:
    """Five batches an epoch, in another order each time."""

    def __init__(self, n: int = 5, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.n, self.change = n, change

    def epoch(self, n: int) -> list[Any]:
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(n)).tolist()
        return [lambda i=i: self._batch(i) for i in order]

    def _batch(self, i: int) -> dict[str, Any]:
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(100 + i))
        batch = {"x": x, "y": x.sum(dim=1), "n_positions": 18}
        if self.change is not None:
            self.change(batch)
        return batch


class Validation:
    """Gives these log-losses, then the last one again; without any, the module's own."""

    def __init__(self, module: Regression, *losses: float, stop_at: int | None = None) -> None:
        self.module, self.losses, self.calls, self.stop_at = module, list(losses), 0, stop_at

    def __call__(self) -> dict[str, float]:
        assert not self.module.training
        assert not torch.is_grad_enabled()
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        torch.rand(1)  # random numbers of a validation must not change the training
        if self.losses:
            loss = self.losses[min(self.calls, len(self.losses)) - 1]
        else:
            x = torch.eye(3)
            loss = float(self.module(x, x.sum(dim=1))["loss"])
        return {"log_loss": loss, "skill": -loss}


def config(**values: Any) -> TrainingConfig:
    small = {"epochs": 2.4, "evaluate_every": 5, "save_every": 5, "warmup_steps": 2}
    small |= {"out": "here", "device": "cpu", "learning_rate": 0.05}
    return TrainingConfig(**small | values)


def run(folder: Path, module: Regression | None = None, **values: Any) -> TrainingHistory:
    module = module or Regression()
    validation = values.pop("validation", None) or Validation(module)
    points = values.pop("points", None) or Points()
    return train(module, points, validation, config(**values), folder)


def bytes_of(module: nn.Module) -> dict[str, bytes]:
    return {name: values.numpy().tobytes() for name, values in module.state_dict().items()}


def interrupted(folder: Path, after: int, **values: Any) -> None:
    """Train, and stop in the n-th validation."""
    module = Regression()
    with pytest.raises(KeyboardInterrupt):
        run(folder, module, validation=Validation(module, stop_at=after), **values)


def test_training_lowers_the_loss_and_changes_only_trainable_parameters(tmp_path: Path) -> None:
    module, new = Regression(), Regression()
    history = run(tmp_path, module, epochs=12.0)
    losses = [one["log_loss"] for one in history.evaluations]
    assert (history.steps, history.stopped) == (60, "all steps are done")
    assert [one["step"] for one in history.evaluations] == list(range(0, 61, 5))
    assert min(losses) < losses[0] / 4
    assert history.best_step == 5 * losses.index(min(losses))
    assert "train_read_loss" in history.evaluations[1]
    changed = {name for name, old in bytes_of(new).items() if bytes_of(module)[name] != old}
    head = {"category_head.weight", "category_head.bias"}
    assert changed == {"adapter.weight", "adapter.bias", *head}
    assert not module.training


@pytest.mark.parametrize("values", [{}, {"gradient_accumulation": 2, "epochs": 4.6}])
def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path, values: Any) -> None:
    straight, resumed = Regression(), Regression()
    # The last step is best, so that the bytes compared are those after all steps.
    falling = (9.0, 8.0, 7.0, 6.0)
    whole = run(tmp_path / "whole", straight, validation=Validation(straight, *falling), **values)
    assert whole.steps == whole.best_step == 12
    interrupted(tmp_path / "parts", after=2, **values)
    assert latest_checkpoint(tmp_path / "parts").step == 5
    parts = run(tmp_path / "parts", resumed, validation=Validation(resumed, *falling[2:]), **values)
    assert bytes_of(resumed) == bytes_of(straight)
    assert parts.steps == 12
    assert [one["step"] for one in parts.evaluations] == [0, 5, 10, 12]
    for one, expected in zip(parts.evaluations, whole.evaluations, strict=True):
        assert one.get("train_loss") == expected.get("train_loss")
    for name in ("parameters", "optimizer"):
        ours, theirs = (
            latest_checkpoint(tmp_path / at).load_tensors(name) for at in ("whole", "parts")
        )
        assert {k: v.tolist() for k, v in ours.items()} == {
            k: v.tolist() for k, v in theirs.items()
        }


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Train without interruption, and with fewer checkpoints: their number must not matter."""
    module = Regression()
    run(tmp_path_factory.mktemp("straight"), module, save_every=100)
    return bytes_of(module)


def killed_while(folder: Path, when: str, at: int) -> None:
    """Die by SIGKILL: at the n-th step, file that is written, or rename."""

    def die_at(calls: Callable[..., Any]) -> Callable[..., Any]:
        count = iter(range(at))

        def call(*arguments: Any, **keywords: Any) -> Any:
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return calls(*arguments, **keywords)

        return call

    if when == "forward":
        Regression.forward = die_at(Regression.forward)  # type: ignore[method-assign]
    elif when == "file":
        checkpoints.atomic_write_bytes = die_at(checkpoints.atomic_write_bytes)
    else:
        os.replace = die_at(os.replace)
    run(folder, save_every=2)


@pytest.mark.parametrize(
    ("when", "at", "last"),
    [("forward", 9, 6), ("file", 5, 2), ("rename", 15, 2), ("file", 1, None)],
)
def test_kill_9_loses_at_most_one_interval(
    tmp_path: Path, straight: dict[str, bytes], when: str, at: int, last: int | None
) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=killed_while, args=(tmp_path, when, at)
    )
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    checkpoint, resumed = latest_checkpoint(tmp_path), Regression()
    assert (checkpoint and checkpoint.step) == last
    run(tmp_path, resumed, save_every=2)
    assert bytes_of(resumed) == straight
    assert not list(tmp_path.glob(".step-*"))


def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, straight: dict[str, bytes]
) -> None:
    interrupted(tmp_path, after=2, save_every=2)
    newest, resumed = latest_checkpoint(tmp_path), Regression()
    assert newest.step == 8
    file = newest.path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"step-00000008 is not used: optimizer\.safetensors"):
        run(tmp_path, resumed, save_every=2)
    assert bytes_of(resumed) == straight


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "complete.json").unlink(), "cannot be read"),
        (lambda path: (path / "complete.json").write_text("{"), "no table of files: Expecting"),
        (lambda path: (path / "complete.json").write_text("[]"), "no table"),
        (lambda path: (path / "more").write_text(""), "more changed"),
    ],
)
def test_an_incomplete_checkpoint_is_not_used(tmp_path: Path, damage: Any, reason: str) -> None:
    save_checkpoint(tmp_path, 3, {"parameters": {}}, {})
    damage(latest_checkpoint(tmp_path).path)
    with pytest.warns(UserWarning, match=reason):
        assert latest_checkpoint(tmp_path) is None


def test_a_full_disk_is_an_error_and_leaves_the_earlier_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = checkpoints.atomic_write_bytes, iter(range(5))

    def full(path: Path, content: bytes) -> None:
        if next(count, None) is None:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoints, "atomic_write_bytes", full)
    with pytest.raises(TrainingError, match=r"step 10 .* No space left .* step 5 is intact"):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "step-00000000",
        "step-00000005",
    ]
    monkeypatch.undo()
    assert run(tmp_path).steps == 12


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        run(tmp_path / "file" / "run")


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    module = Regression()
    validation = Validation(module, 9.0, 1.0, 2.0)
    history = run(tmp_path, module, validation=validation, epochs=6.0, keep=2, patience=9)
    assert history.best_step == 5
    names = sorted(path.name for path in tmp_path.glob("step-*"))
    assert names == ["step-00000005", "step-00000025", "step-00000030"]


def test_pruning_neither_deletes_nor_counts_newer_broken_checkpoints(tmp_path: Path) -> None:
    for step in (2, 4, 9):
        save_checkpoint(tmp_path, step, {}, {})
    prune_checkpoints(tmp_path, 4, keep=1, best=0)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-00000004",
        "step-00000009",
    ]


def test_the_module_has_the_best_parameters_and_patience_ends_the_run(tmp_path: Path) -> None:
    module, best = Regression(), Regression()
    history = run(
        tmp_path / "a", module, validation=Validation(module, 3, 1, 2), epochs=9, patience=3
    )
    assert (history.best_step, history.steps) == (5, 20)
    assert history.stopped == "3 validations without a better log-loss"
    checkpoint = checkpoints.checkpoint_at(tmp_path / "a", 5).load_tensors("parameters")
    assert all(torch.equal(module.state_dict()[name], checkpoint[name]) for name in checkpoint)
    again = run(tmp_path / "a", best, validation=Validation(best, stop_at=0), epochs=9, patience=3)
    assert again == history
    assert bytes_of(best) == bytes_of(module)


def test_a_run_with_a_time_limit_ends_by_then(tmp_path: Path) -> None:
    history = run(tmp_path, epochs=500.0, max_minutes=0.005, save_every=100, evaluate_every=100)
    assert history.stopped == "0.005 minutes are over"
    assert history.evaluations[-1]["step"] == history.steps < 2500


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda batch: batch.pop(name)


def fill(value: float) -> Callable[[dict[str, Any]], None]:
    return lambda batch: batch.update(y=torch.full((6,), value))


def test_the_error_of_a_loss_that_is_not_finite_has_its_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        run(tmp_path, points=Points(change=fill(torch.nan)))


def test_the_error_of_a_gradient_that_is_not_finite_has_its_step(tmp_path: Path) -> None:
    module = Regression()
    module.adapter.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match="a gradient is not finite at step 1"):
        run(tmp_path, module)


def test_a_validation_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    module = Regression()
    with pytest.raises(TrainingError, match="validation log-loss is nan at step 5"):
        run(tmp_path, module, validation=Validation(module, 1.0, torch.nan))


class ZeroLoss(Regression):
    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": super().forward(x, y)["loss"] * 0}


def test_a_loss_of_zero_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="exactly 0 at step 1"):
        run(tmp_path, ZeroLoss())


def test_nothing_to_train_is_an_error(tmp_path: Path) -> None:
    module = Regression().requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter is trainable"):
        run(tmp_path, module)


def test_the_error_of_parameters_without_a_gradient_names_them(tmp_path: Path) -> None:
    module = Regression()
    module.idle = nn.Linear(2, 2)
    with pytest.raises(
        TrainingError, match=r"2 .* frozen: idle\.bias, idle\.weight get no gradient"
    ):
        run(tmp_path, module)


def test_the_error_of_parameters_that_do_not_change_names_them(tmp_path: Path) -> None:
    # So large that a step of the rate is less than its precision.
    module = Regression()
    with torch.no_grad():
        module.category_head.bias.fill_(1e9)
    with pytest.raises(TrainingError, match=r"frozen: category_head\.bias do not change"):
        run(tmp_path, module)


def test_a_half_of_an_adapter_that_waits_for_the_other_is_not_frozen(tmp_path: Path) -> None:
    module = Regression()
    nn.init.zeros_(module.category_head.weight)
    assert run(tmp_path, module).steps == 12


def test_no_batches_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no batches"):
        run(tmp_path, points=Points(0))


def test_an_error_of_the_module_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'y'"):
        run(tmp_path, points=Points(change=drop("y")))


def test_another_config_cannot_continue_a_run(tmp_path: Path) -> None:
    interrupted(tmp_path, after=2)
    with pytest.raises(TrainingError, match=r"learning_rate 0\.05, not 0\.1"):
        run(tmp_path, learning_rate=0.1)
    with pytest.raises(TrainingError, match=r"lora\.rank 16, not 8"):
        run(tmp_path, lora={"rank": 8})
    assert run(tmp_path, out="there").steps == 12


def test_other_data_cannot_continue_a_run(tmp_path: Path) -> None:
    interrupted(tmp_path, after=2)
    with pytest.raises(TrainingError, match="has 12 batches, now there are 15"):
        run(tmp_path, points=Points(6))


def test_another_module_cannot_continue_a_run(tmp_path: Path) -> None:
    interrupted(tmp_path, after=2)
    module = Regression()
    module.adapter.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"other parameters, such as 'adapter\.bias'"):
        run(tmp_path, module)


def test_the_category_head_has_a_rate_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, head_learning_rate=0.5, warmup_steps=0)
    groups = latest_checkpoint(tmp_path).load_values()["optimizer"]["groups"]
    assert [(group["initial_lr"], group["param_names"]) for group in groups] == [
        (0.05, ["adapter.weight", "adapter.bias"]),
        (0.5, ["category_head.weight", "category_head.bias"]),
    ]
    assert all(group["lr"] == 0 for group in groups)


class RenamedHeads(nn.Module):
    """Heads under other names, deeper in the module, and shared."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.shared = CategoryHead(2, 1)
        self.inner = nn.ModuleDict({"odd": TitleEmbeddings(np.arange(3), 2, 1)})
        self.inner["again"] = self.shared


def test_a_head_has_its_own_rate_whatever_it_is_called_and_wherever_it_is() -> None:
    module, rates = RenamedHeads(), config(head_learning_rate=0.5, titles={"rate": 0.25})
    by_name = parameter_rates(module, rates)
    assert by_name.keys() == dict(module.named_parameters()).keys()
    for name, rate in by_name.items():
        expected = {"shared": 0.5, "inner": 0.25, "linear": 0.05}[name.partition(".")[0]]
        assert rate == expected, name
    module.shared.requires_grad_(False)
    assert set(parameter_rates(module, rates).values()) == {0.05, 0.25}


def test_every_class_of_heads_has_a_rate() -> None:
    classes = {
        one
        for one in vars(heads).values()
        if isinstance(one, type) and issubclass(one, nn.Module) and one.__module__ == heads.__name__
    }
    assert len(classes) > 1
    assert head_rates(config()).keys() == classes


def test_without_a_terminal_each_validation_is_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "llmrec.training"):
        run(tmp_path)
    lines = [record.getMessage() for record in caplog.records if "llmrec" in record.name]
    assert [line.split(":")[0] for line in lines] == ["step 0", "step 5", "step 10", "step 12"]
    assert all(words in lines[-1] for words in ("train_loss", "skill", "tokens/s", "min left"))
    assert capfd.readouterr().out == ""


class Follower(TrainerCallback):
    """A stand-in for a service that ``report_to`` names."""

    logs: list[dict[str, float]] = []  # noqa: RUF012

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logs.append({**logs, "step": state.global_step})


def test_a_service_in_report_to_follows_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "follower", Follower)
    Follower.logs.clear()
    run(tmp_path, report_to=["follower"])
    assert [log["step"] for log in Follower.logs] == [0, 5, 10, 12]
    assert {"loss", "read_loss", "eval_log_loss", "eval_skill", "learning_rate"} <= set(
        Follower.logs[-1]
    )


def test_an_unknown_service_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"report_to is \['nobody'\]: nobody is not supported"):
        run(tmp_path, report_to=["nobody"])


def test_the_config_of_a_run_lies_beside_its_checkpoints(tmp_path: Path) -> None:
    run(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert TrainingConfig.model_validate_json(json.dumps(values)) == config()
