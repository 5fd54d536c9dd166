from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="serving needs pip install 'llmrec[serve]'")

from fastapi.testclient import TestClient

from llmrec.engine import InterestEngine
from llmrec.person_hindsight import find_window
from llmrec.ranking.edits import Edit
from llmrec.serve.access import Access
from llmrec.serve.app import create_app
from llmrec.serve.live import LiveEngine
from llmrec.serve.page_state import PageState
from llmrec.serve.store import EventStore
from tests.serve.explorer_world import (
    CUTOFF,
    HOSTILE_PERSON,
    N_PEOPLE,
    NEIGHBOUR,
    PERSON,
    World,
    hostile_log,
)

BASE = "http://127.0.0.1"
PAGES = [
    "/",
    "/people",
    "/people?q=u00",
    f"/people/{PERSON}",
    f"/people/{PERSON}?hindsight=on&factor:Drama=2&text=no+horror",
    f"/explanation?user={PERSON}&item=i/010",
    f"/stored?user={PERSON}",
    f"/compare?users={PERSON}&users={NEIGHBOUR}",
    "/log",
    "/login",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def client(world: World) -> TestClient:
    return TestClient(world.app(), base_url=BASE)


def titles(page: str) -> list[str]:
    """Give the titles of the list, top to bottom."""
    start = page.index('<ol class="list">')
    return [unescape(one) for one in re.findall(r"<strong><bdi>(.*?)</bdi>", page[start:])]


@pytest.mark.parametrize("address", PAGES)
def test_a_page_answers_and_runs_nothing_of_the_log(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 200
    assert "<script>window" not in answer.text
    assert "<img" not in answer.text
    assert "style=" not in answer.text
    assert not re.search(r"<script(?! defer src=)", answer.text)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_everything_that_a_page_links_to_is_on_this_server(client: TestClient) -> None:
    page = client.get(f"/people/{PERSON}").text
    links = {unescape(one) for one in re.findall(r'(?:src|href|hx-get)="([^"#]+)"', page)}
    assert all(one.startswith("/") for one in links)
    assert {client.get(one).status_code for one in sorted(links)} == {200}


def test_the_list_of_a_page_is_that_of_a_session_with_its_edits(
    client: TestClient, world: World
) -> None:
    plain = client.get(f"/people/{PERSON}").text
    session = world.engine.session(PERSON)
    assert titles(plain) == [one.title for one in session.recommend(10)]
    query = "factor:Drama=4&mute:Horror=on&strength=1.5"
    edited = client.get(f"/people/{PERSON}?{query}").text
    expected = session.edit(Edit("Drama", 4), Edit("Horror", 0), strength=1.5)
    assert titles(edited) == [one.title for one in expected.recommend(10)] != titles(plain)
    for said in ("4 times as much Drama.", "No Horror.", "Verified by ranking again", "was "):
        assert said in edited


def test_sliders_that_stand_at_one_are_no_edits(client: TestClient, world: World) -> None:
    fitted = world.engine.session(PERSON).strength
    answer = client.get(f"/people/{PERSON}?factor:Drama=1&strength={fitted}&text=")
    assert "The list as forecast." in answer.text
    assert answer.headers["hx-replace-url"] == f"/people/{PERSON}"


def test_a_locked_category_keeps_its_share_while_another_grows(client: TestClient) -> None:
    page = client.get(f"/people/{PERSON}?lock:Drama=on&factor:War=4").text
    assert "Keep Drama as it is." in page
    row = page[page.index('name="factor:Drama"') - 900 :]
    assert "was" not in row[: row.index('name="factor:Drama"')].rpartition("data-label")[2]


def test_edits_that_cannot_be_applied_are_said_and_stay_in_the_form(client: TestClient) -> None:
    query = "&".join(f"mute:{name}=on" for name in ("Action", "Comedy", "Drama", "Horror", "War"))
    page = client.get(f"/people/{PERSON}?{query}").text
    assert "no category is left" in page
    assert len(re.findall(r'name="mute:\w+" checked', page)) == 5
    assert titles(page)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("factor:Drama=much", "it should be a number"),
        ("factor:Drama=1e9", "must lie in 0..100"),
        ("factor:Opera=2", "unknown category"),
        ("strength=-3", "strength"),
        ("strength=nan", "strength"),
        ("removed=nothing", "is not known"),
        ("wish=xyzzy+plugh", "xyzzy"),
    ],
)
def test_an_address_that_somebody_broke_says_what_is_wrong(
    client: TestClient, query: str, said: str
) -> None:
    answer = client.get(f"/people/{PERSON}?{query}")
    assert answer.status_code == 200
    assert said in unescape(answer.text[answer.text.index('role="alert"') :])


def test_a_wish_is_shown_and_not_applied_until_somebody_says_so(client: TestClient) -> None:
    page = client.get(f"/people/{PERSON}?factor:War=2&text=no+horor,+more+drama+until+June").text
    assert "Understood, not applied yet" in page
    assert "“horor” was taken for Horror." in unescape(page)
    assert "<strong>Twice as much War.</strong>" in page
    found = re.search(r'class="button" href="([^"]+)"', page)
    assert found
    applied = client.get(unescape(found[1])).text
    said = re.search(r"<strong>(.*?)</strong>", applied[applied.index('id="list-heading"') :])
    assert said
    for sentence in ("Twice as much War.", "No Horror.", "Twice as much Drama until 1 June 2020."):
        assert sentence in said[1]


def test_what_of_a_wish_is_not_understood_is_said(client: TestClient) -> None:
    page = client.get(f"/people/{PERSON}?text=more+quuxology").text
    assert "Not understood" in page
    assert 'class="button"' not in page


def test_without_a_past_item_the_list_is_that_of_a_history_without_it(
    client: TestClient, world: World
) -> None:
    session = world.engine.session(PERSON)
    item = int(session.history.item_idx[-1])
    item_id = session.history.catalog.ids[item]
    page = client.get(f"/people/{PERSON}", params={"removed": item_id}).text
    without = world.engine.session(session.history.without_items([item]))  # type: ignore[arg-type]
    assert titles(page) == [one.title for one in without.recommend(10)]
    assert "As if 1 of the" in page
    assert f'value="{item_id}" checked' in page


def test_hindsight_shows_what_came_where_the_log_has_it(client: TestClient, world: World) -> None:
    page = client.get(f"/people/{PERSON}?hindsight=on").text
    assert "26 Feb 2020 to 3 Mar 2020" in page
    assert "as often as their 80 % interval says" in page
    assert "did not come true" not in client.get(f"/people/{PERSON}").text
    people = [one for one in world.engine.dataset.log.user_ids if one != HOSTILE_PERSON]
    talked_of = next(user for user in people if world.engine.forecast(user).statements)
    judged = client.get(f"/people/{talked_of}?hindsight=on").text
    assert re.search(r'class="(true|false)">(did not come|came) true<', judged)


def test_where_nothing_is_known_of_what_came_no_page_offers_it(world: World) -> None:
    for whole in (None, world.engine.dataset):
        blind = TestClient(world.app(whole=whole), base_url=BASE)
        assert "What happened" not in blind.get(f"/people/{PERSON}?hindsight=on").text


def test_the_period_of_events_that_came_is_that_after_the_history() -> None:
    dataset = replace(hostile_log(), period="5 events")
    history = dataset.histories(CUTOFF, [3])[0]
    window = find_window(dataset, history)
    assert window is not None
    first = int(dataset.log.user_offsets[3]) + history.n_events
    assert window.target.start == first
    assert window.target.n_events == 5


def test_an_explanation_is_checked_and_follows_the_edits(client: TestClient, world: World) -> None:
    session = world.engine.session(PERSON, edits=[Edit("War", 4)])
    first = session.recommend(1)[0]
    params = {"user": PERSON, "item": first.item_id, "factor:War": "4"}
    page = unescape(client.get("/explanation", params=params).text)
    assert session.explain(first.item_id).change.text in page
    assert "Checked: all of it was computed again." in page
    assert client.get(f"/explanation?user={PERSON}&item=none").status_code == 404


def test_stored_forecasts_are_shown_with_what_became_of_them(client: TestClient) -> None:
    page = client.get(f"/stored?user={PERSON}").text
    assert "in advance" in page
    assert "scored" in page
    assert "nats an event" in page
    assert "is not known" in unescape(client.get("/stored?user=nobody").text)


def test_an_unknown_person_is_404_with_near_ids(client: TestClient) -> None:
    answer = client.get("/people/u0055")
    assert answer.status_code == 404
    assert f'href="/people/{PERSON}"' in answer.text
    assert client.get("/compare?users=u0055").status_code == 404
    assert client.get("/explanation?user=u0055&item=x").status_code == 404


def test_a_hostile_id_has_a_page_and_is_found(client: TestClient) -> None:
    link = f'href="/people/{quote(HOSTILE_PERSON, safe="")}"'
    assert link in client.get("/people", params={"q": "<SCRIPT"}).text
    assert client.get(f"/people/{quote(HOSTILE_PERSON, safe='')}").status_code == 200


def test_people_are_listed_a_page_at_a_time_and_a_far_page_is_the_last(client: TestClient) -> None:
    assert f"{N_PEOPLE} found" in client.get("/people").text
    assert client.get("/people?page=999").status_code == 200
    assert "Nobody." in client.get("/people?q=zzz").text


def test_the_log_page_says_what_the_commands_say(client: TestClient, world: World) -> None:
    from llmrec.data.check import check_dataset
    from llmrec.engine_info import describe_engine

    page = unescape(client.get("/log").text)
    for line in check_dataset(world.engine.dataset).lines():
        assert line in page
    for line in describe_engine(world.forecasts.parent / "engine").lines():
        assert line in page


def test_people_are_compared_side_by_side(client: TestClient) -> None:
    page = client.get(f"/compare?users={PERSON}&users={NEIGHBOUR}&users=").text
    assert page.count("<article>") == 2
    assert page.count('class="timeline"') == 2


def test_a_key_is_needed_where_there_is_one_and_gives_a_cookie(world: World) -> None:
    guarded = TestClient(world.app(key="secret"), base_url=BASE, follow_redirects=False)
    browser = {"accept": "text/html"}
    asked = guarded.get(f"/people/{PERSON}", headers=browser)
    assert asked.status_code == 303
    assert asked.headers["location"] == f"/login?next=/people/{PERSON}"
    assert guarded.post("/login", data={"key": "wrong"}).status_code == 401
    given = guarded.post("/login", data={"key": "secret", "next": f"/people/{PERSON}"})
    assert given.headers["location"] == f"/people/{PERSON}"
    page = guarded.get(f"/people/{PERSON}", headers=browser)
    assert page.status_code == 200
    assert "Log out" in page.text
    guarded.post("/logout")
    assert guarded.get("/people", headers=browser).status_code == 303


@pytest.mark.parametrize("target", ["https://example.com", "//example.com", "/\\example.com", ""])
def test_a_login_leads_to_no_other_site(world: World, target: str) -> None:
    guarded = TestClient(world.app(key="secret"), base_url=BASE, follow_redirects=False)
    given = guarded.post("/login", data={"key": "secret", "next": target})
    assert given.headers["location"] == "/"


def test_a_state_is_the_same_after_it_was_written_into_an_address() -> None:
    from urllib.parse import parse_qsl

    state = PageState(
        edits=(Edit("A & B", 0.5), Edit("C=D", 0.0, lock=True), Edit("É", 1.0, lock=True)),
        wishes=("No War until 1 June 2020.",),
        strength=0.35,
        removed=("i/1", "i 2"),
        hindsight=True,
        text="more <b>",
    )
    assert PageState.read(parse_qsl(state.query())) == state
    assert PageState().query() == ""


def test_the_package_says_whose_the_scripts_are_that_it_brings() -> None:
    static = Path(__file__).parents[2] / "llmrec" / "serve" / "static"
    licences = {one.name.partition(".")[0] for one in static.glob("*.LICENSE.txt")}
    assert licences == {one.name.partition(".")[0] for one in static.glob("*.min.*")}


def test_the_server_has_the_pages_and_asks_for_its_key(
    engine: InterestEngine, tmp_path: Path
) -> None:
    store = EventStore(str(tmp_path / "events.db"))
    with LiveEngine(engine, store, refresh_seconds=0) as live:
        app = create_app(live, access=Access("secret"))
        user = live.engine.dataset.log.user_ids[0]
        with TestClient(app, base_url=BASE) as guarded:
            asked = guarded.get(f"/people/{user}", headers={"accept": "text/html"})
            assert "API key" in asked.text
            page = guarded.get(f"/people/{user}", headers={"x-api-key": "secret"})
            assert page.status_code == 200
            assert titles(page.text) == [one.title for one in live.session(user).recommend(10)]
