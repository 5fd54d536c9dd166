"""What tells who somebody is leaves titles, and all else stays."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec import cli
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset, read_table
from llmrec.data.redaction import COUNTS_FILE, Redactor
from llmrec.errors import DataError
from llmrec.language.codec import Codec
from tests.real_parts import needs_real_parts

FIRST = ("ana", "jörg", "mary-jane", "o.connor", "Wei", "fatima", "x", "sales")
LAST = ("müller", "smith", "garcia99", "nguyen", "de.vries", "ivanova")
HOSTS = ("example.com", "mail.example.co.uk", "uni-ulm.de", "gmail.com", "büro.example")
SENTENCES = (
    "Gift for {}",
    "{}",
    "Order of {} (blue)",
    "Poster: {}, 50x70 cm",
    "Mug '{}' 330 ml",
    "The {} Story (1998)",
)
PHONES = (  # #: any digit
    *("+49 30 #######", "+49(0)30/###-####", "+44 20 7### ####", "+1 (212) ###-####"),
    *("+33 6 ## ## ## ##", "0049 171 #######", "+91-#8###-#####", "+81-3-####-####"),
    *("+55 11 #####-####", "+3906########", "030 #######", "(030) ### ## ##", "0171/#######"),
    *("06 ## ## ## ##", "020 7### ####", "07700 ######", "(212) ###-####", "212-###-####"),
    *("212.###.####", "01 ## ## ## ##", "044 ### ## ##"),
)
MISSED_PHONES = ("###-####", "## ## ##", "55 ## ## ##")  # without the code of a place


def luhn(digits: str) -> str:
    """Give digits with the check digit of a card."""
    for last in "0123456789":
        doubled = [int(d) for d in reversed(digits + last)]
        total = sum(doubled[::2]) + sum(d * 2 - 9 * (d > 4) for d in doubled[1::2])
        if total % 10 == 0:
            return digits + last
    raise AssertionError


def account(country: str, rest: str) -> str:
    """Give an IBAN with its check digits."""
    value = int("".join(str(int(sign, 36)) for sign in f"{rest}{country}00"))
    return f"{country}{98 - value % 97:02d}{rest}"


def spaced(text: str, gap: str) -> str:
    return gap.join(text[start : start + 4] for start in range(0, len(text), 4))


def makers(rng: np.random.Generator) -> dict[str, Callable[[], str]]:
    """Give what makes a datum of each kind."""

    def one(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    def digits(n: int) -> str:
        return "".join(map(str, rng.integers(0, 10, n)))

    def filled(shape: str) -> str:
        return "".join(str(rng.integers(0, 10)) if sign == "#" else sign for sign in shape)

    def mail() -> str:
        at = one(("@", "@", "@", " (at) ", "[at]"))
        return f"{one(FIRST)}{one(('.', '_', '+', ''))}{one(LAST)}{at}{one(HOSTS)}"

    def card() -> str:
        start = one(("4", "51", "37", "6011"))
        n = 14 if start == "37" else 15
        return spaced(luhn(start + digits(n - len(start))), one(("", " ", "-")))

    def iban() -> str:
        country, n = (("DE", 18), ("FR", 23), ("GB", 18))[int(rng.integers(3))]
        return spaced(account(country, digits(n)), one(("", " ")))

    return {
        "mail": mail,
        "url": lambda: f"{one(('https://', 'http://', 'www.'))}{one(HOSTS)}/u/{digits(4)}",
        "handle": lambda: f"@{one(('ana_m', 'JoergM', 'the_real_wei', 'm99'))}",
        "phone": lambda: filled(one(PHONES)),
        "card": card,
        "account": iban,
        "number": lambda: one((digits(12), filled("3##-##-####"), filled("8######"))),
    }


def rates(n: int = 200, seed: int = 0) -> dict[str, float]:
    """Give the share of made-up data of each kind of which no digit or word is left."""
    rng = np.random.default_rng(seed)
    redactor, found = Redactor(), Counter[str]()
    make = makers(rng)
    for kind, datum in make.items():
        for _ in range(n):
            sentence = SENTENCES[int(rng.integers(len(SENTENCES)))]
            shown = redactor.redact(sentence.format(datum()))
            kinds = "|".join(make)
            found[kind] += any(shown == sentence.format(f"({other})") for other in kinds.split("|"))
    return {kind: found[kind] / n for kind in make}


def test_made_up_data_of_every_kind_is_replaced() -> None:
    shares = rates()
    assert min(shares.values()) >= 0.95, shares
    assert np.mean(list(shares.values())) >= 0.99, shares


@needs_real_parts
@pytest.mark.parametrize(
    "name", ["ml-100k", pytest.param("completejourney", marks=pytest.mark.slow)]
)
def test_no_title_of_a_real_log_is_changed(name: str) -> None:
    plain, redacted = load_dataset(name), load_dataset(name, redact=True)
    assert redacted.catalog.titles == plain.catalog.titles
    assert redacted.catalog.categories == plain.catalog.categories
    assert redacted.findings == plain.findings


FILMS = ("2001: A Space Odyssey (1968)", "Malcolm X (1992)", "Apollo 13", "12 Angry Men", "M@trix")
SIZES = (
    "50/50",
    "$9.99",
    "US 36 / EU 40",
    "128 GB 2.4 GHz",
    "AA 4 x 1.5 V",
    "3x4x5",
    "Size 38 40 42",
)
NUMBERS = (
    "Best of 1999 2000 2001",
    "10-12-1492",
    "2001-12-24",
    "1990-1995",
    "1,000,000",
    "No. 007",
)


@pytest.mark.parametrize(
    "title", [*FILMS, *SIZES, *NUMBERS, "Startup.com", "1990-1995", "No. 007", "Ocean's 11 12 13"]
)
def test_years_sizes_and_names_of_films_stay(title: str) -> None:
    assert Redactor().redact(title) == title


@pytest.mark.parametrize("shape", MISSED_PHONES)
def test_a_number_without_the_code_of_a_place_is_not_found(shape: str) -> None:
    text = f"call {shape.replace('#', '5')}"
    assert Redactor().redact(text) == text  # and docs/your-data.md says so


def test_given_names_alone_are_replaced_and_as_whole_words() -> None:
    redactor, counts = Redactor(["Ana", "Ana María Cruz", " "]), Counter[str]()
    shown = redactor.redact("ANA and Banana for Ana María Cruz", counts)
    assert shown == "(name) and Banana for (name)"
    assert counts == {"name": 2}
    assert Redactor().redact("for Ana María Cruz") == "for Ana María Cruz"


@pytest.mark.parametrize("text", ["a@b.de", "+49 30 1234567", "@ana_m", "www.a.de"])
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    once = Redactor().redact(text)
    assert once != text
    assert Redactor().redact(once) == once


@pytest.mark.parametrize("text", ["1", "1 ", "@", "a.b@", "a@b.", "+4", "(0", "a1", "www."])
def test_a_long_text_takes_no_time(text: str) -> None:
    start = time.process_time()
    Redactor(["Ana"]).redact(text * (1_000 // len(text)))  # titles are shorter
    assert time.process_time() - start < 0.5


def events() -> pd.DataFrame:
    names = ("Mug for a@b.de", "Mug for c@d.de", "Card 4111 1111 1111 1111", "Plain (1998)")
    categories = (["by +49 30 1234567"], ["by +49 30 7654321"], ["Art"], ["Art"])
    rows = [
        (f"u{user}", f"i{item}", f"2024-0{1 + item}-0{1 + user}", names[item], categories[item])
        for user in range(3)
        for item in range(4)
    ]
    columns = ["user_id", "item_id", "timestamp", "title", "categories"]
    return pd.DataFrame(rows, columns=columns)


def test_neither_catalog_nor_prompt_nor_an_earlier_log_holds_what_was_redacted() -> None:
    dataset = read_table(events(), redact=True)
    assert set(dataset.catalog.titles) == {"Mug for (mail)", "Card (card)", "Plain (1998)"}
    assert set(dataset.catalog.categories) == {"by (phone)", "by (phone) 2", "Art"}
    assert {(f.rule, f.rows) for f in dataset.reading if "was replaced" in f.rule} == {
        ("a mail in titles and categories was replaced", 2),
        ("a card in titles and categories was replaced", 1),
        ("a phone in titles and categories was replaced", 2),
    }
    cutoff = np.datetime64("2024-04-01")
    for known in (dataset, dataset.known_before(cutoff)):
        codec = Codec(known.catalog.categories, template="forecast-v3", budget=1_000)
        prompts = "".join(map(codec.prompt, known.histories(cutoff)))
        assert "Mug for (mail)" in prompts
        assert "@" not in prompts
        assert "1234567" not in prompts


def test_the_command_writes_the_log_again_and_says_how_often(tmp_path: Path) -> None:
    log, out, names = tmp_path / "log.parquet", tmp_path / "redacted", tmp_path / "names.txt"
    events().to_parquet(log)
    names.write_text("Plain\n", encoding="utf-8")
    before = log.read_bytes()
    command = ["redact", "--data", str(log), "--out", str(out), "--names", str(names)]
    shown = CliRunner().invoke(cli.app, command)
    assert shown.exit_code == 0, shown.output
    assert log.read_bytes() == before
    expected = {"mail": 2, "card": 1, "phone": 2, "name": 1}
    counts = json.loads((out / COUNTS_FILE).read_text(encoding="utf-8"))
    assert {kind: n for kind, n in counts.items() if n} == expected
    found, plain = load_dataset(out), load_dataset(log)
    assert found.log.timestamp.tolist() == plain.log.timestamp.tolist()
    assert found.log.item_ids.tolist() == plain.log.item_ids.tolist()
    assert "(name) (1998)" in found.catalog.titles
    again = CliRunner().invoke(cli.app, command)
    assert isinstance(again.exception, DataError)
    assert "give a new folder" in str(again.exception)
    names.write_bytes(b"Andr\xe9\n")
    shown = CliRunner().invoke(cli.app, [*command[:4], f"{out}-2", *command[5:]])
    assert "is not UTF-8" in str(shown.exception)


def test_titles_of_later_items_and_of_parts_are_redacted_as_they_will_be_read() -> None:
    hidden = "Mail anna0&#64;example.com or bob\uff20example.com"
    events = pd.DataFrame(
        {
            "user_id": ["u1", "u2", "u1"],
            "item_id": ["a", "b", "b"],
            "timestamp": pd.to_datetime(["2020-01-01", "2020-02-01", "2021-01-01"]),
        }
    )
    items = pd.DataFrame({"item_id": ["a", "b"], "title": [hidden, "B"], "categories": ["x", "y"]})
    data = read_table(events, items, name="shop", redact=True)
    both = Redactor().redact_dataset(
        Dataset.join({"one": read_table(events, items), "two": read_table(events, items)})
    )[0]
    known = data.known_before("2020-06-01")
    for one in (data, known, *both.parts.values()):
        assert not any("example.com" in title for title in one.catalog.titles)
