"""The explorer in a real Chromium: the main journey, and what a person without a mouse needs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="serving needs pip install 'llmrec[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="serving needs pip install 'llmrec[serve]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")

from tests.serve.explorer_world import NEIGHBOUR, PERSON, World  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--no-first-run", "--disable-quic"),
)
AXE = Path(__file__).parent / "axe.min.js"
KEY = "a key for this test"
SECONDS = 20.0

pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"there is no {CHROMIUM}")


def serve(app: Any) -> tuple[Any, threading.Thread, str]:
    """Serve an application on a free port until its server is told to exit."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + SECONDS
    while not server.started and time.monotonic() < ends:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    return server, thread, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def addresses(world: World) -> Iterator[tuple[str, str]]:
    """Where the pages are, and where they are behind a key."""
    served = [serve(world.app(key)) for key in ("", KEY)]
    yield served[0][2], served[1][2]
    for server, thread, _ in served:
        server.should_exit = True
        thread.join(SECONDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose scripts fail nowhere: an error on its console fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    found.set_default_timeout(1000 * SECONDS)
    errors: list[str] = []
    found.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    found.on("pageerror", lambda error: errors.append(str(error)))
    yield found
    assert found.evaluate("window.hostile") is None, "a text of the log was run"
    context.close()
    assert errors == []


def listed(page: Any) -> list[str]:
    return list(page.locator(".list strong").all_inner_texts())


def settings(page: Any) -> Any:
    return page.locator(".ranked [role=status] strong")


def move(page: Any, category: str, steps: int) -> None:
    """Move a slider with the keyboard."""
    slider = page.locator(f'input[name="factor:{category}"]')
    slider.focus()
    for _ in range(abs(steps)):
        slider.press("ArrowRight" if steps > 0 else "ArrowLeft")


def test_the_main_journey(page: Any, addresses: tuple[str, str]) -> None:
    expect = playwright.expect
    page.goto(addresses[0])
    page.get_by_label("by id").press_sequentially(PERSON[:-1])
    expect(page.locator("#people tbody tr")).to_have_count(9)  # one of ten has another id
    page.get_by_role("link", name=PERSON, exact=True).click()
    expect(page.locator("canvas")).to_have_count(1)
    plain = listed(page)

    move(page, "War", 4)
    expect(settings(page)).to_contain_text("Twice as much War.")
    expect(page.locator('input[name="factor:War"]')).to_be_focused()
    expect(page.get_by_text("Verified by ranking again")).to_be_visible()
    assert listed(page) != plain
    assert "factor%3AWar=2" in page.url

    page.get_by_label("mute Horror").check()
    expect(settings(page)).to_contain_text("No Horror.")
    expect(page.locator('input[name="factor:Horror"]')).to_be_disabled()
    page.get_by_label("lock Comedy").check()
    expect(settings(page)).to_contain_text("Keep Comedy as it is.")

    page.get_by_label("Or say what to change").fill("less drama, more action until June")
    page.get_by_label("Or say what to change").press("Enter")
    expect(page.get_by_text("Understood, not applied yet")).to_be_visible()
    expect(settings(page)).not_to_contain_text("Drama")
    page.get_by_role("link", name="Apply").click()
    expect(settings(page)).to_contain_text("Half as much Drama.")
    expect(settings(page)).to_contain_text("Twice as much Action until 1 June 2020.")
    assert page.locator('input[name="factor:Drama"]').input_value() == "0.5"
    expect(page.locator("#list-heading")).to_be_focused()

    shared = page.url
    page.goto(shared)
    expect(settings(page)).to_contain_text("Half as much Drama.")
    page.get_by_label("mute Horror").uncheck()
    expect(settings(page)).not_to_contain_text("No Horror.")
    page.get_by_role("link", name="Back to the list as forecast").click()
    expect(settings(page)).to_have_text("The list as forecast.")
    assert listed(page) == plain
    assert page.url.endswith(f"/people/{PERSON}")

    page.get_by_label("as if never").first.check()
    expect(page.get_by_text("As if 1 of the")).to_be_visible()
    page.get_by_label("Show what came").check()
    expect(page.get_by_text("26 Feb 2020 to 3 Mar 2020")).to_be_visible()
    page.get_by_role("link", name="Explain in full").first.click()
    expect(page.get_by_text("Checked: all of it was computed again.")).to_be_visible()
    page.get_by_role("link", name="How they did").click()
    expect(page.get_by_text("nats an event")).to_be_visible()


def test_pages_beside_the_person_s(page: Any, addresses: tuple[str, str]) -> None:
    expect = playwright.expect
    page.goto(f"{addresses[0]}/compare")
    for place, user in enumerate((PERSON, NEIGHBOUR)):
        page.locator("input[name=users]").nth(place).fill(user)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("canvas")).to_have_count(2)
    page.get_by_role("link", name="Log and engine").click()
    expect(page.get_by_text("What to expect")).to_be_visible()


def test_a_key_opens_the_pages_and_a_wrong_one_does_not(
    browser: Any, addresses: tuple[str, str]
) -> None:
    expect, context = playwright.expect, browser.new_context()
    page = context.new_page()
    page.goto(f"{addresses[1]}/people/{PERSON}")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("This is not the key.")).to_be_visible()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=PERSON)).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.goto(f"{addresses[1]}/people")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    context.close()


def test_the_page_works_without_scripts(browser: Any, addresses: tuple[str, str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{addresses[0]}/people/{PERSON}")
    page.get_by_label("mute Horror").check()
    page.get_by_role("button", name="Rank again").click()
    playwright.expect(settings(page)).to_have_text("No Horror.")
    context.close()


def test_a_chart_of_a_notebook_draws_what_the_page_draws(
    page: Any, addresses: tuple[str, str], world: World
) -> None:
    from llmrec.person_html import render_chart_frame
    from llmrec.person_timeline import TimelineView

    frame = render_chart_frame(TimelineView.of(world.engine.session(PERSON)))
    page.goto("about:blank")
    page.set_content(f"<!doctype html><html lang=en><title>Notebook</title><body>{frame}")
    inside = page.frame_locator("iframe")
    playwright.expect(inside.locator("canvas")).to_have_count(1)
    drawn = inside.locator("figure").get_attribute("data-chart")
    page.goto(f"{addresses[0]}/people/{PERSON}")
    assert page.locator("figure").get_attribute("data-chart") == drawn


PERSON_PAGE = f"/people/{PERSON}?hindsight=on&factor:War=2&text=no+horor+or+xyzzy,+more+drama"
OTHER_PAGES = (
    "/",
    "/people",
    f"/people/{PERSON}?wish=No+War+until+1+June+2020.&removed=i/010",
    f"/explanation?user={PERSON}&item=i/010",
    f"/stored?user={PERSON}",
    f"/compare?users={PERSON}&users={NEIGHBOUR}",
    "/log",
    "/login",
    "/people/nobody",
)
LOOKS = [(width, theme) for width in (360, 1280) for theme in ("light", "dark")]


def require_accessible(browser: Any, address: str, width: int, theme: str) -> None:
    """Let axe-core look at a page with everything open; and no page scrolls sideways."""
    options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    context = browser.new_context(**options, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    serious = [
        f"{one['id']} at {node['target']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_the_person_s_page_has_no_serious_finding_of_axe(
    browser: Any, addresses: tuple[str, str], width: int, theme: str
) -> None:
    require_accessible(browser, addresses[0] + PERSON_PAGE, width, theme)


@pytest.mark.parametrize("path", OTHER_PAGES)
@pytest.mark.parametrize(
    ("width", "theme"),
    [pytest.param(*look, marks=[pytest.mark.slow] * (look != (360, "dark"))) for look in LOOKS],
)
def test_no_other_page_has_a_serious_finding_of_axe(
    browser: Any, addresses: tuple[str, str], path: str, width: int, theme: str
) -> None:
    require_accessible(browser, addresses[0] + path, width, theme)


def test_every_control_shows_that_it_has_the_focus(page: Any, addresses: tuple[str, str]) -> None:
    page.goto(f"{addresses[0]}/people/{PERSON}")
    names = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => [document.activeElement.outerHTML, "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none", name
        names |= set(re.findall(r'name="(\w+)', name))
    assert {"factor", "mute", "lock", "strength", "text"} <= names
