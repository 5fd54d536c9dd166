"""Nobody asks the server without its key, and no page of another site can."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.responses import Response

from llmrec.errors import OptionError
from llmrec.serve import access as access_module
from llmrec.serve.access import COOKIE, KEY_VARIABLE, LOGIN_SECONDS, Access
from llmrec.serve.app import create_app
from llmrec.serve.live import LiveEngine
from llmrec.serve.store import EventStore
from tests.serve.conftest import OpenEngine

KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, open_engine: OpenEngine) -> Iterator[LiveEngine]:
    path = tmp_path_factory.mktemp("access") / "events.db"
    with LiveEngine(open_engine(), EventStore(str(path)), refresh_seconds=0) as started:
        yield started


@pytest.fixture
def client(live: LiveEngine) -> TestClient:
    return TestClient(create_app(live, access=Access(KEY)), base_url="http://shop.example")


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}],
)
def test_the_key_opens(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/users/u000/forecast", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"X-API-Key": ""},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY.upper()},
        {"Cookie": f"{COOKIE}={KEY}"},
        {"Cookie": f"{COOKIE}=9999999999."},
    ],
)
@pytest.mark.parametrize("path", ["/users/u000/forecast", "/metrics", "/openapi.json", "/nothing"])
def test_without_it_all_but_the_health_is_401(
    client: TestClient, headers: dict[str, str], path: str
) -> None:
    answer = client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert KEY not in answer.text
    assert client.get("/healthz", headers=headers).status_code == 200


def test_a_wrong_key_takes_the_same_comparison_however_near_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[int, int]] = []

    def note(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return hmac_compare(first, second)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(access_module.hmac, "compare_digest", note)
    for given in ("", "x", KEY[:-1], KEY + "x", "x" * 10_000):
        assert not Access(KEY).accepts(given)
    assert set(compared) == {(32, 32)}


def test_a_browser_is_led_to_the_login_page(client: TestClient) -> None:
    answer = client.get("/people/1", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/people/1")


def test_the_cookie_of_the_login_opens_for_a_while_and_does_not_hold_the_key(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(KEY)
    assert access.login("wrong") is None
    value = access.login(KEY)
    assert value is not None
    assert KEY not in value
    client.cookies.set(COOKIE, value)
    assert client.get("/users/u000/forecast").status_code == 200
    assert not Access("another key").accepts_cookie(value)
    ends, _, signature = value.partition(".")
    assert not access.accepts_cookie(f"{int(ends) + 1}.{signature}")
    now = time.time()
    monkeypatch.setattr(access_module.time, "time", lambda: now + LOGIN_SECONDS + 2)
    assert not access.accepts_cookie(value)


def test_the_cookie_is_for_this_site_and_no_script() -> None:
    response = Response()
    Access(KEY).set_cookie(response, "value", secure=True)
    found = response.headers["set-cookie"].lower()
    for attribute in ("httponly", "samesite=strict", "secure", f"max-age={LOGIN_SECONDS}"):
        assert attribute in found


def test_a_page_of_another_site_changes_nothing(live: LiveEngine) -> None:
    client = TestClient(create_app(live), base_url="http://127.0.0.1:8000")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9"):
        answer = client.delete("/users/u000", headers={"Origin": origin})
        assert answer.status_code == 403
    assert client.get("/users/u000/forecast").status_code == 200
    own = {"Origin": "http://127.0.0.1:8000"}
    assert client.post("/events", json={"events": []}, headers=own).status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "[", "", "ä"])
def test_without_a_key_only_names_of_this_machine_are_answered(live: LiveEngine, host: str) -> None:
    client = TestClient(create_app(live), base_url="http://127.0.0.1:8000")
    answer = client.get("/users/u000/forecast", headers={b"Host": host.encode()})
    assert answer.status_code == 403


@pytest.mark.parametrize("key", ["", "  "])
def test_it_does_not_listen_to_others_without_a_key(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    assert not Access.from_environment("127.0.0.1").is_needed
    for host in ("0.0.0.0", "::", "192.168.1.5", "shop.example"):
        with pytest.raises(OptionError, match=f"{KEY_VARIABLE} is not set"):
            Access.from_environment(host)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert Access.from_environment("0.0.0.0").is_needed


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(OptionError, match="ASCII"):
        Access.from_environment("127.0.0.1")


def test_the_key_is_in_no_representation() -> None:
    assert KEY not in repr(Access(KEY))
