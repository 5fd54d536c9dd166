"""Edits in English: parsed the same way every time, and never guessed in silence."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.errors import EditError
from llmrec.ranking.edit_parser import (
    edit_sentences,
    match_category,
    parse_description_edits,
    parse_edits,
)
from llmrec.ranking.edits import Edit

AT = np.datetime64("2017-11-05", "ms")
FILMS = ("Action", "Children's", "Comedy", "Crime", "Drama", "Film-Noir", "Horror", "Sci-Fi")
FOODS = ("Canned Milk", "Cold And Flu", "Cookies", "Fluid Milk Products", "Frozen Pizza", "Tea")


def catalog(names: Sequence[str] = FILMS) -> Catalog:
    frame = pd.DataFrame({"item_id": range(len(names)), "categories": [[name] for name in names]})
    return Catalog.from_frame(frame)


def parse(text: str, names: Sequence[str] = FILMS) -> set[Edit]:
    found = parse_edits(text, catalog(names), AT)
    assert found.issues == ()
    return set(found.edits)


def day(text: str) -> np.datetime64:
    return np.datetime64(text, "ms")


@pytest.mark.parametrize(
    ("text", "edits"),
    [
        ("more comedies, no horror", {Edit("Comedy", 2), Edit("Horror", 0)}),
        ("a bit less drama", {Edit("Drama", 0.7)}),
        ("drama a bit less and comedies much more", {Edit("Drama", 0.7), Edit("Comedy", 4)}),
        ("keep crime as it is", {Edit("Crime", 1, lock=True)}),
        ("Never again SCI FI, please!", {Edit("Sci-Fi", 0)}),
        ("no more film noir films", {Edit("Film-Noir", 0)}),
        ("less horror, crime and drama", {Edit(n, 0.5) for n in ("Horror", "Crime", "Drama")}),
        ("I want to see more childrens movies", {Edit("Children's", 2)}),
        ("twice as much action but half as much drama", {Edit("Action", 2), Edit("Drama", 0.5)}),
        ("3 times as much crime; 30% less drama", {Edit("Crime", 3), Edit("Drama", 0.7)}),
        ("exactly 1.5 times as much crime", {Edit("Crime", 1.5, lock=True)}),
        ("no horror until March", {Edit("Horror", 0, day("2018-03-01"))}),
        ("no horror until 5 November", {Edit("Horror", 0, day("2018-11-05"))}),
        ("no horror until 29 February", {Edit("Horror", 0, day("2020-02-29"))}),
        ("no horror until Dec 24th 2019", {Edit("Horror", 0, day("2019-12-24"))}),
        ("no horror for two weeks", {Edit("Horror", 0, day("2017-11-19"))}),
        ("no horror for a month", {Edit("Horror", 0, day("2017-12-05"))}),
        (
            "no crime, no horror and drama until 2018",
            {Edit("Crime", 0), *(Edit(n, 0, day("2018-01-01")) for n in ("Horror", "Drama"))},
        ),
        ("no horror, drama, until 2018", {Edit(n, 0, day("2018-01-01")) for n in FILMS[4:7:2]}),
        ("", set()),
        (" , please . ", set()),
    ],
)
def test_text_is_parsed_into_edits(text: str, edits: set[Edit]) -> None:
    assert parse(text) == edits


def test_only_mutes_what_no_edit_names() -> None:
    assert parse("only comedies") == {Edit(name, 0) for name in FILMS if name != "Comedy"}
    until = day("2018-03-01")
    others = {"Action", "Children's", "Film-Noir", "Horror", "Sci-Fi"}
    assert parse("more crime, only comedies and drama until March") == {
        Edit("Crime", 2),
        *(Edit(name, 0, until) for name in others),
    }
    assert parse("only tea", ["Tea"]) == set()


def test_a_long_text_is_parsed_whole_and_written_back() -> None:
    text = (
        "more action, no horror, a bit less drama, only comedies until March, never again sci-fi, "
        "keep crime as it is"
    )
    items = catalog((*FILMS, "War"))
    assert edit_sentences(parse_edits(text, items, AT).edits, items) == [
        "Only Comedy until 1 March 2018.",
        "Twice as much Action.",
        "No Horror.",
        "0.7 times as much Drama.",
        "No Sci-Fi.",
        "Keep Crime as it is.",
    ]


def test_words_that_are_not_quite_a_name_are_assumed_to_be_the_only_near_one_and_listed() -> None:
    found = parse_edits("more pizza, no cookie, more frozn pizza", catalog(FOODS), AT)
    assert found.edits == (Edit("Frozen Pizza", 2), Edit("Cookies", 0))
    assert found.assumed == (("pizza", "Frozen Pizza"), ("frozn pizza", "Frozen Pizza"))
    assert found.issues == ()


@pytest.mark.parametrize(
    ("text", "why", "near"),
    [
        ("no milk", "“milk” is not one category", ("Canned Milk", "Fluid Milk Products")),
        ("more xyzzy", "“xyzzy” is not one category", ()),
        ("more really strong tea", "“really strong tea” is not one category", None),
        ("tea cookies more", "“tea cookies” is not one category", None),
        ("tea", "how much Tea", ()),
        ("more", "it names no category", ()),
        ("tea more never", "two amounts come together", ()),
        ("more never tea", "two amounts come together", ()),
        ("not more tea", "“not” is not one category", None),
        ("no tea until someday", "“tea until someday” is not one category", None),
        ("no tea until 30 February 2018", "there is no 30 February 2018", ()),
        ("no tea until March until May", "it has two ends", ()),
        ("no tea for 0 days", "“for 0 days” is no time at all; say at least 1 day", ()),
        ("101 times as much tea", "'Tea': the factor must lie in 0..100 .*not 101", ()),
        ("-2 times as much tea", "'Tea': the factor must lie in 0..100 .*not -2", ()),
        ("1e999 times as much tea", "'Tea': the factor must lie in 0..100 .*not inf", ()),
        ("nan times as much tea", "“nan times as much tea” is not one", None),
        ('no "Teas"x', "", None),
    ],
)
def test_what_is_not_understood_is_an_issue_and_gives_no_edit(
    text: str, why: str, near: tuple[str, ...] | None
) -> None:
    found = parse_edits(f"{text}, no cold and flu", catalog(FOODS), AT)
    assert found.edits == (Edit("Cold And Flu", 0),)
    (issue,) = found.issues
    assert re.search(why, issue.why)
    assert near is None or issue.near == near
    assert issue.said in issue.text
    assert issue.said == text


def test_a_name_of_common_words_is_written_in_quotes() -> None:
    names = ("No", "More War", 'The "Best"', "Until March", "Toys, Games", "Drama", "drama")
    assert parse('more "No", no "The ""Best""", less "drama"', names) == {
        Edit("No", 2),
        Edit('The "Best"', 0),
        Edit("drama", 0.5),
    }
    assert parse_edits("less drama", catalog(names), AT).issues[0].near == ("Drama", "drama")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "more horror, no horror",
            "two edits of 'Horror' contradict each other: “Twice as much Ho",
        ),
        ("keep crime as it is, crime never", "two edits of 'Crime' contradict"),
        ("only comedies, only drama", "“only comedies” and “only drama” contradict each other"),
        ("no " + "x" * 5_000, "have 5,003 characters; write at most 4,000"),
    ],
)
def test_edits_that_contradict_each_other_or_a_text_too_long_are_refused(
    text: str, message: str
) -> None:
    with pytest.raises(EditError, match=message):
        parse_edits(text, catalog(), AT)


def test_of_an_edited_description_only_what_is_new_is_parsed() -> None:
    description = "Drama is rising, from 20% to 31%. Horror is fading."
    found = parse_description_edits(
        description, f"{description} More action, no horror.", catalog(), AT
    )
    assert found.edits == (Edit("Action", 2), Edit("Horror", 0))
    assert found.issues == ()
    assert parse_description_edits(description, description, catalog(), AT).edits == ()
    shorter = parse_description_edits(
        description, "Drama is rising, from 20% to 31%.", catalog(), AT
    )
    assert [one.said for one in shorter.issues] == ["Horror is fading."]
    inside = description.replace("31%.", "31%, but less crime.")
    assert parse_description_edits(description, inside, catalog(), AT).edits == (
        Edit("Crime", 0.5),
    )


def test_an_edit_right_after_a_sentence_of_the_description_is_parsed() -> None:
    description = "Drama is rising (last taken: R.E.M. (2020) and Se7en (1995) on 2 May 2020)."
    for text in ("no horror", "No horror.", ' no "Horror"'):
        found = parse_description_edits(description, description + text, catalog(), AT)
        assert found.edits == (Edit("Horror", 0),)
        assert found.issues == ()


def test_one_name_is_found_or_refused_with_near_ones() -> None:
    assert match_category("COMEDIES", catalog()) == "Comedy"
    assert match_category("cheeses", catalog(("Cheese", "Cheeses"))) == "Cheeses"
    assert parse("no cheese", ("Cheese", "Cheeses")) == {Edit("Cheese", 0)}
    assert match_category("pizzas", catalog(FOODS)) == "Frozen Pizza"
    with pytest.raises(EditError, match=r"'milk'; near: Canned Milk, Fluid Milk Products\."):
        match_category("milk", catalog(FOODS))
    with pytest.raises(EditError, match="'xyzzy'; near: Action, "):
        match_category("xyzzy", catalog())


names = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
    | st.sampled_from([*FILMS, "No", "only", "More War", 'a "b"', "until 2018", "x, y", "Films"]),
    min_size=1,
    max_size=8,
)
times = st.none() | st.integers(0, 4_000_000_000_000).map(lambda ms: np.datetime64(ms, "ms"))
factors = st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 1e-5]) | st.floats(0, 100)


@settings(max_examples=150)
@given(names, st.data())
def test_sentences_of_edits_are_parsed_into_the_same_edits(
    names: list[str], data: st.DataObject
) -> None:
    try:
        items = catalog(names)
    except ValueError:  # nothing of the names is left by cleaning
        return
    chosen = data.draw(st.lists(st.sampled_from(items.categories), unique=True))
    kinds = st.tuples(factors, times, st.booleans()) | st.just((0.0, None, False))
    edits = [Edit(name, *data.draw(kinds)) for name in chosen]
    sentences = edit_sentences(edits, items)
    assert all(sentence.endswith(".") for sentence in sentences)
    found = parse_edits(" ".join(sentences), items, AT)
    assert found.issues == found.assumed == ()
    assert set(found.edits) == set(edits)


def test_a_category_called_only_is_written_in_quotes() -> None:
    items = catalog(["0", "P", "Q", "00", "000", "0000", "ONLY"])
    edits = [Edit(name, 0.0) for name in ("0", "0000", "P", "Q")]
    edits += [Edit(name, 0.25) for name in ("00", "000", "ONLY")]
    sentences = edit_sentences(edits, items)
    assert set(parse_edits(" ".join(sentences), items, AT).edits) == set(edits)


@settings(max_examples=150)
@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [
                *("more", "no", "only", "less", "keep", "until", "March", "2018", "for", "2"),
                *("weeks", "times", "as", "much", "comedy", "horror", ",", ".", '"', "%"),
            ]
        )
    ).map(" ".join)
)
def test_any_text_gives_edits_of_the_catalog_or_a_named_error(text: str) -> None:
    try:
        found = parse_edits(text, catalog(), AT)
    except EditError:
        return
    assert {edit.category for edit in found.edits} <= set(FILMS)
    assert found == parse_edits(text, catalog(), AT)
