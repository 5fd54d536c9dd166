from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmrec import InterestEngine, cli
from llmrec.data.dataset import Dataset
from llmrec.data.readers import read_table
from llmrec.errors import DataError
from llmrec.explain.describe import check_description
from llmrec.language.completion_server import CompletionServer
from llmrec.language.model import LanguageModel
from tests.completions import completion, completions_endpoint
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame

RUN = CliRunner()
PEOPLE = ["u001", "u002", "u003", "u004"]


def first_claim(body: dict[str, Any]) -> tuple[int, bytes]:
    """Answer with the last variant of the first claim that the grammar has."""
    (rule,) = re.findall(r"^CLAIM-0 ::= (.*)$", body["grammar"], re.MULTILINE)
    return 200, completion(f" {json.loads(rule.split(' | ')[-1])}.")


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name="", **_: FakeModel())


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read_table(frame(), name="small")


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "small.csv"
    frame().to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("model", [None, "auto"])
def test_a_server_words_the_descriptions_with_or_without_a_model_beside_it(
    dataset: Dataset, model: Any
) -> None:
    plain = InterestEngine.from_pretrained(data=dataset, model=model)
    with completions_endpoint(first_claim) as endpoint:
        engine = InterestEngine.from_pretrained(data=dataset, model=model, writer=endpoint.url)
        forecasts = engine.forecast_many(PEOPLE)
        listed = engine.recommend_many(PEOPLE[:2], k=3)
    assert engine.writer is not None
    assert engine.writer.counts == {"by the server": len(PEOPLE) + 2}
    for user, forecast, rule in zip(PEOPLE, forecasts, plain.forecast_many(PEOPLE), strict=True):
        assert (forecast.category_weights == rule.category_weights).all()
        assert "in the server's words" in forecast.source.why
        assert forecast.source.proposed == 1
        assert check_description(engine.history(user), forecast) is None
    assert [[one.item_id for one in items] for items in listed] == [
        [one.item_id for one in items] for items in plain.recommend_many(PEOPLE[:2], k=3)
    ]


def test_a_server_that_fails_costs_a_few_requests_and_no_description(dataset: Dataset) -> None:
    plain = InterestEngine.from_pretrained(data=dataset, model=None)
    with completions_endpoint(lambda _: (500, b"")) as endpoint:
        engine = InterestEngine.from_pretrained(data=dataset, model=None, writer=endpoint.url)
        people = engine.histories()
        found = [one.description for one in engine.forecast_many(people)]
        n_asked = len(endpoint.requests)
        engine.forecast(PEOPLE[0])
    assert len(people) == 60
    assert 3 <= n_asked == len(endpoint.requests) <= 6
    assert found == [one.description for one in plain.forecast_many(people)]


def test_a_url_that_is_none_is_refused_before_the_log_is_read() -> None:
    with pytest.raises(DataError, match="URL"):
        InterestEngine.from_pretrained(data="no such log", writer="localhost:8080")


def test_the_command_line_says_in_one_line_what_became_of_the_descriptions(table: str) -> None:
    options = ["--data", table, "--user", "u001"]
    with completions_endpoint(first_claim) as endpoint:
        server = ["--writer-url", endpoint.url, "--writer-model", "small"]
        three = [*options, "--user", "u002", "--user", "u003", *server]
        shown = RUN.invoke(cli.app, ["forecast", *three])
        as_json = RUN.invoke(cli.app, ["forecast", *three, "--json"])
        listed = RUN.invoke(cli.app, ["recommend", *options, *server, "--json"])
    assert shown.exit_code == 0, shown.output
    assert shown.stderr == "3 descriptions: 3 by the server\n"
    assert "in the server's words" in " ".join(shown.stdout.split())
    assert as_json.stderr == shown.stderr
    assert len(json.loads(as_json.stdout)) == 3
    assert listed.stderr == "1 description: 1 by the server\n"
    assert json.loads(listed.stdout)["source"]["proposed"] == 1
    assert {body["model"] for body in endpoint.requests} == {"small"}
    shown = RUN.invoke(cli.app, ["forecast", *options, *server])
    assert shown.exit_code == 0, shown.output
    assert shown.stderr == "1 description: 1 no connection\n"


def test_a_models_name_without_a_server_is_refused(table: str) -> None:
    shown = RUN.invoke(
        cli.app, ["forecast", "--data", table, "--user", "u001", "--writer-model", "small"]
    )
    assert "--writer-url" in str(shown.exception)


def test_a_server_is_used_where_torch_is_not_installed(table: str) -> None:
    code = (
        "import sys; from llmrec import cli, engine_config; "
        "engine_config.is_llm_installed = lambda: False; "
        "cli.app(sys.argv[1:], standalone_mode=False); "
        "print({'torch', 'transformers', 'llguidance'} & set(sys.modules), file=sys.stderr)"
    )
    with completions_endpoint(first_claim) as endpoint:
        options = ["--data", table, "--user", "u001", "--writer-url", endpoint.url, "--json"]
        command = [sys.executable, "-c", code, "forecast", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "1 description: 1 by the server\nset()\n"
    assert json.loads(done.stdout)["source"]["proposed"] == 1


def test_a_server_and_its_key_are_not_saved(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMREC_WRITER_KEY", "k-1234")
    server = CompletionServer("http://localhost:8080/v1", "small")
    engine = InterestEngine.from_pretrained(data=dataset, model=None, writer=server)
    engine.save_pretrained(tmp_path / "engine")
    for path in (tmp_path / "engine").rglob("*"):
        assert path.is_dir() or not re.search(b"k-1234|localhost:8080", path.read_bytes())
