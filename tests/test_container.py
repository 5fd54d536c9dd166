"""The Dockerfile and the compose file, as far as they can be tested without a Docker daemon."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest

from tests.pages import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """List what follows an instruction of the Dockerfile, wherever it stands."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return dict(found["services"])


def test_images_have_an_exact_version(services: dict[str, Any]) -> None:
    images = [line.split()[0] for line in instructions("FROM")]
    images += [one["image"] for one in services.values() if "image" in one]
    assert [image for image in images if not re.fullmatch(r"\w+:\d+\.\d+[\w.-]*", image)] == []


def test_the_server_is_no_root_and_its_health_is_checked() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", last_stage, re.MULTILINE)
    (check,) = instructions("HEALTHCHECK")
    assert "/healthz" in check


def test_all_that_is_copied_exists_and_is_not_ignored() -> None:
    copied = [shlex.split(line)[:-1] for line in instructions("COPY")]
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in [name for names in copied if "--from=build" not in names for name in names]:
        assert (ROOT / name).exists()
        assert f"!{name}" in kept


def test_the_command_is_one_that_llmrec_has() -> None:
    from typer.main import get_command

    from llmrec.cli import app

    (command,) = instructions("CMD")[-1:]
    words = [word.strip('",') for word in command.strip("[]").split()]
    commands = getattr(get_command(app), "commands")  # noqa: B009  (a Group's)
    options = {option for parameter in commands[words[0]].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_secrets_come_from_the_environment_and_are_asked_for(services: dict[str, Any]) -> None:
    server, database = services["serve"]["environment"], services["database"]["environment"]
    assert server["LLMREC_API_KEY"].startswith("${LLMREC_API_KEY:?")
    assert database["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert "${POSTGRES_PASSWORD}@database/" in server["LLMREC_DATABASE"]


def test_the_database_outlives_its_container_and_the_server_waits_for_it(
    services: dict[str, Any],
) -> None:
    assert services["database"]["volumes"] == ["events:/var/lib/postgresql/data"]
    assert services["serve"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert all(port.startswith("127.0.0.1:") for port in services["serve"]["ports"])


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_has_no_remark() -> None:
    checked = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
