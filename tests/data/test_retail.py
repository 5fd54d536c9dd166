"""UCI's Online Retail: its three file forms and two sets of column names, and each rule."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data import retail
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset
from llmrec.errors import DataError, MissingExtraError
from tests.data.log_files import categories_of, events_of, rules_of, write_log

pytest.importorskip("sklearn", reason="clusters of titles need the extra clusters")

COLUMNS = (
    *("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice"),
    *("CustomerID", "Country"),
)
SECOND_NAMES = {"InvoiceNo": "Invoice", "UnitPrice": "Price", "CustomerID": "Customer ID"}
MUG, LAMP = ("22001", "RED MUG"), ("22002b", "DESK LAMP ")


def line(
    invoice: str,
    item: tuple[str, str | None] = MUG,
    quantity: float | None = 1,
    day: int = 1,
    customer: str | None = "17850",
    price: float | None = 2.5,
    clock: str = "8:26",
) -> tuple[Any, ...]:
    """One line of an invoice, in December 2010, as the CSV of the log has it."""
    code, description = item
    time = f"12/{day}/2010 {clock}"
    return invoice, code, description, quantity, time, price, customer, "United Kingdom"


def frame(lines: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(list(lines), columns=[*COLUMNS])


def load(folder: Path, *lines: tuple[Any, ...], **options: Any) -> Dataset:
    path = folder / "retail.csv"
    frame(lines).to_csv(path, index=False)
    return load_dataset(path, **options)


def dropped(dataset: Dataset) -> dict[str, int]:
    return dict(dataset.log.report.dropped)


LINES = (
    line("536365", MUG, 6),
    line("536365", LAMP, 2),
    line("536366", MUG, 1, day=2, customer="13047"),
)
EVENTS = [("13047", "Red Mug"), ("17850", "Red Mug"), ("17850", "Desk Lamp")]


def write_form(folder: Path, table: pd.DataFrame, form: str) -> Path:
    path = folder / f"Online Retail.{form}"
    if form == "csv":
        table.to_csv(path, index=False)
        return path
    times = pd.to_datetime(table["InvoiceDate"], format="%m/%d/%Y %H:%M")
    customer = next(name for name in table if name in ("CustomerID", "Customer ID"))
    table = table.assign(**{"InvoiceDate": times, customer: table[customer].astype("Int32")})
    if form == "parquet":
        table.to_parquet(path)
    else:
        pytest.importorskip("openpyxl", reason="spreadsheets need the extra excel")
        codes = [int(code) if code.isdecimal() else code for code in table["StockCode"]]
        table.assign(StockCode=codes).to_excel(path, index=False)
    return path


@pytest.mark.parametrize("names", [{}, SECOND_NAMES], ids=["first names", "second names"])
@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_three_file_forms_and_two_sets_of_names_are_one_log(
    tmp_path: Path, form: str, names: dict[str, str]
) -> None:
    path = write_form(tmp_path, frame(LINES).rename(columns=names), form)
    for place in (path, tmp_path):
        dataset = load_dataset(place)
        assert events_of(dataset) == EVENTS
        assert list(dataset.catalog.item_ids) == ["22001", "22002B"]
        assert str(dataset.log.timestamp.min()) == "2010-12-01T08:26:00.000"
        assert dropped(dataset) == {}
    assert (dataset.name, dataset.period, dataset.repeat) == ("online-retail", "28D", "allow")
    assert (dataset.noun, dataset.person, dataset.verb) == ("products", "customer", "bought")


def test_customers_that_were_made_floats_are_the_same(tmp_path: Path) -> None:
    dataset = load(tmp_path, line("1", customer="17850.0"), line("2", customer="13047", day=2))
    assert list(dataset.log.user_ids) == ["13047", "17850"]


def test_iso_times_and_those_of_another_order_are_read(tmp_path: Path) -> None:
    table = frame([line("1"), line("2", day=2)])
    for times, dates in (
        (["2010-12-01 08:26:00", "2010-12-02 08:26:00"], None),
        (["1/12/2010 08:26", "2/12/2010 08:26"], "day-first"),
    ):
        table.assign(InvoiceDate=times).to_csv(tmp_path / "retail.csv", index=False)
        log = load_dataset(tmp_path, dates=dates).log
        assert [str(time)[:16] for time in log.timestamp] == [
            "2010-12-01T08:26",
            "2010-12-02T08:26",
        ]


def test_a_spreadsheet_needs_an_extra_which_the_error_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openpyxl", reason="spreadsheets need the extra excel")
    path = write_form(tmp_path, frame(LINES), "xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[excel\]'"):
        load_dataset(path)


def test_of_several_sheets_the_first_is_read_which_is_told(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="spreadsheets need the extra excel")
    with pd.ExcelWriter(tmp_path / "retail.xlsx") as book:
        frame(LINES).to_excel(book, sheet_name="Year 2009", index=False)
        frame(LINES[:1]).to_excel(book, sheet_name="Year 2010", index=False)
    dataset = load_dataset(tmp_path)
    assert len(dataset.log) == 3
    (said,) = [one for one in dataset.findings if "sheets" in one.rule]
    assert (said.rule, said.example) == ("of 2 sheets the first is read", "not Year 2010")


def test_another_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="spreadsheets need the extra excel")
    pd.DataFrame({"user_id": [1], "item_id": [2]}).to_excel(tmp_path / "log.xlsx", index=False)
    with pytest.raises(DataError, match=r"log\.xlsx is a spreadsheet: save it as CSV"):
        load_dataset(tmp_path / "log.xlsx")


def test_two_such_files_in_a_folder_may_both_be_meant(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        frame(LINES).to_csv(tmp_path / name, index=False)
    with pytest.raises(DataError, match=r"one\.csv and .*two\.csv may both be meant"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "name", ["InvoiceNo", "Description", "Quantity", "UnitPrice", "CustomerID"]
)
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    frame(LINES).drop(columns=name).to_csv(tmp_path / "retail.csv", index=False)
    with pytest.raises(DataError, match=rf"retail\.csv: column '{name}' is missing"):
        load_dataset(tmp_path)


def test_columns_that_are_given_make_it_a_plain_table(tmp_path: Path) -> None:
    frame(LINES).to_csv(tmp_path / "retail.csv", index=False)
    columns = {"user_id": "CustomerID", "item_id": "StockCode", "timestamp": "InvoiceDate"}
    columns |= {"categories": "Country", "title": "Description"}
    dataset = load_dataset(tmp_path / "retail.csv", columns=columns, dates="month-first")
    assert dataset.catalog.categories == ("United Kingdom",)


def test_a_number_that_is_none_is_named_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"retail\.csv: column 'Quantity', row 1: 'six' is not"):
        load(tmp_path, line("1"), ("2", *MUG, "six", "12/1/2010 8:26", 1, "1", ""))


# What is left out


def test_guests_are_left_out(tmp_path: Path) -> None:
    dataset = load(tmp_path, line("1"), line("2", customer=None), line("C3", customer=None))
    assert dropped(dataset) == {retail.NO_CUSTOMER: 2}


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (["POST", "DOT", "C2"], "line of postage or carriage"),
        (["AMAZONFEE", "BANK CHARGES", "CRUK"], "line of a fee or commission"),
        (["M", "m", "D", "B", "ADJUST2"], "manual entry, discount or adjustment"),
        (["S", "PADS"], "line of samples or packing"),
        (["gift_0001_20"], "line of a gift voucher"),
        (["DCGS0003", "DCGSSGIRL", "1234", "220011", "22001-B"], retail.OTHER_CODE),
    ],
)
def test_lines_that_are_no_products_are_counted_by_kind(
    tmp_path: Path, codes: list[str], reason: str
) -> None:
    others = [line(f"C{n}", (code, "OTHER"), 1) for n, code in enumerate(codes)]
    others += [line(f"{n}", (code, "OTHER"), 1) for n, code in enumerate(codes)]
    dataset = load(tmp_path, *LINES, *others)
    assert dropped(dataset) == {reason: 2 * len(codes)}
    assert len(dataset.log) == 3


def test_lines_without_a_price_or_a_quantity_are_left_out(tmp_path: Path) -> None:
    no_price = [line("1", price=price) for price in (0, -11062.06, None)]
    dataset = load(tmp_path, *LINES, *no_price, line("2", quantity=0), line("3", quantity=None))
    assert dropped(dataset) == {retail.NO_PRICE: 3, retail.NO_QUANTITY: 2}


def test_lines_of_one_item_on_one_invoice_are_one_event(tmp_path: Path) -> None:
    again = line("536365", MUG, 12), line("536367", MUG, 1)
    dataset = load(tmp_path, *LINES, *again)
    assert dropped(dataset) == {retail.SAME_PURCHASE: 1}
    assert events_of(dataset).count(("17850", "Red Mug")) == 2  # another invoice of that minute


def test_the_price_of_a_piece_is_kept_whatever_the_order_of_lines(tmp_path: Path) -> None:
    lines = [
        line("1", MUG, price=2.5),
        line("1", MUG, price=2.1),
        line("1", LAMP, price=9.95),
        line("2", MUG, day=2, price=3.0, customer="13047"),
        line("3", LAMP, day=3, price=0.0),
    ]
    for given in (lines, lines[::-1]):
        log = load(tmp_path, *given).log
        assert log.price is not None
        titles = [title for _, title in events_of(load(tmp_path, *given))]
        assert sorted(zip(titles, log.price.tolist(), strict=True)) == [
            ("Desk Lamp", 9.95),
            ("Red Mug", 2.1),
            ("Red Mug", 3.0),
        ]
        left = log.drop_events({"cheap": log.price < 3})
        assert left.price is not None
        assert sorted(left.price.tolist()) == [3.0, 9.95]


def test_stock_codes_in_small_and_capital_letters_are_one_item(tmp_path: Path) -> None:
    dataset = load(tmp_path, line("1", ("22002b", "LAMP")), line("2", ("22002B", "LAMP"), day=2))
    assert list(dataset.catalog.item_ids) == ["22002B"]
    assert len(dataset.log) == 2


def test_the_most_frequent_description_is_the_title(tmp_path: Path) -> None:
    said = ["DESK LAMP", " LAMP  FOR DESK", "LAMP FOR DESK ", None]
    lines = [line(str(n), ("22002", text), day=n + 1) for n, text in enumerate(said)]
    dataset = load(tmp_path, *lines, line("9", ("22003", None)))
    assert dataset.catalog.titles == ("Lamp For Desk", "22003")
    assert any("differ in their titles" in rule for rule in rules_of(dataset))


def test_nothing_is_left_for_reasons_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)retail\.csv: no interaction survived.*1 dropped: "):
        load(tmp_path, line("1", customer=None), line("2", ("POST", "POSTAGE")))
    with pytest.raises(DataError, match=rf"(?s)no event is left.*{retail.TAKEN_BACK}"):
        load(tmp_path, line("1"), line("C2", quantity=-1, day=2))


# Cancellations


def days_left(dataset: Dataset, title: str = "Red Mug", user: str = "17850") -> list[int]:
    """Give the days of December 2010 on which a person bought an item."""
    times = dataset.log.timestamp.astype("datetime64[D]").astype(object)
    return [
        time.day
        for time, event in zip(times, events_of(dataset), strict=True)
        if event == (user, title)
    ]


@pytest.mark.parametrize(
    ("quantity", "left"),
    [(-1, [1, 3, 5]), (-4, [1, 3]), (-6, [1, 3]), (-9, [1]), (-12, []), (-99, [])],
)
def test_a_cancellation_takes_back_the_newest_purchases_first(
    tmp_path: Path, quantity: int, left: list[int]
) -> None:
    bought = [line("1", quantity=3), line("2", quantity=5, day=3), line("3", quantity=4, day=5)]
    dataset = load(tmp_path, line("0", LAMP), *bought, line("C4", quantity=quantity, day=7))
    assert days_left(dataset) == left
    taken_back = {retail.TAKEN_BACK: 3 - len(left)} if len(left) < 3 else {}
    assert dropped(dataset) == {retail.CANCELLATION: 1, **taken_back}


def test_a_purchase_may_be_taken_back_in_several_parts(tmp_path: Path) -> None:
    bought = line("0", LAMP), line("1", quantity=5), line("2", quantity=2, day=9)
    parts = [line("C3", quantity=-2, day=2), line("C4", quantity=-3, day=3)]
    assert days_left(load(tmp_path, *bought, parts[0])) == [1, 9]
    assert days_left(load(tmp_path, *bought, *parts)) == [9]


def test_a_negative_quantity_cancels_on_any_invoice_and_a_c_with_any_sign(tmp_path: Path) -> None:
    bought = line("0", LAMP), line("1"), line("2", day=2)
    dataset = load(tmp_path, *bought, line("3", quantity=-1, day=3), line("c4", quantity=1, day=4))
    assert days_left(dataset) == []
    assert dropped(dataset) == {retail.CANCELLATION: 2, retail.TAKEN_BACK: 2}


def test_a_cancellation_before_any_purchase_takes_nothing_back(tmp_path: Path) -> None:
    dataset = load(tmp_path, line("C1", quantity=-3), line("2", quantity=3, day=2))
    assert days_left(dataset) == [2]
    assert dropped(dataset) == {retail.UNMATCHED: 1}


def test_a_cancellation_at_the_time_of_a_purchase_comes_after_it(tmp_path: Path) -> None:
    dataset = load(tmp_path, line("0", LAMP), line("C1", quantity=-3), line("2", quantity=3))
    assert days_left(dataset) == []


def test_cancellations_are_of_one_customer_and_one_item(tmp_path: Path) -> None:
    bought = line("1"), line("2", customer="13047"), line("3", LAMP)
    dataset = load(tmp_path, *bought, line("C4", day=2), line("C5", LAMP, day=2, customer="13047"))
    assert events_of(dataset) == [("13047", "Red Mug"), ("17850", "Desk Lamp")]
    assert dropped(dataset) == {retail.CANCELLATION: 1, retail.UNMATCHED: 1, retail.TAKEN_BACK: 1}


def test_lines_of_one_purchase_are_taken_back_together(tmp_path: Path) -> None:
    bought = line("0", LAMP), line("1", quantity=2), line("1", quantity=3)
    assert days_left(load(tmp_path, *bought, line("C2", quantity=-4, day=2))) == [1]
    assert days_left(load(tmp_path, *bought, line("C2", quantity=-5, day=2))) == []


def test_somebody_who_took_everything_back_is_said_to_have(tmp_path: Path) -> None:
    dataset = load(tmp_path, *LINES, line("C9", quantity=-1, day=3, customer="13047"))
    with pytest.raises(DataError, match=rf"13047.*all were left out \({retail.TAKEN_BACK}\)"):
        dataset.log.user_index("13047")


def test_the_order_of_lines_changes_nothing(tmp_path: Path) -> None:
    lines = [
        line(str(n), (f"2200{n % 4}", f"{WORDS[n % 4]} {COLOURS[n % 3]}"), n, n % 9 + 1)
        for n in range(1, 40)
    ]
    lines += [line(f"C{n}", (f"2200{n % 4}", "CANDLE"), -n, n % 7 + 3) for n in range(1, 20)]
    one, other = load(tmp_path, *lines, clusters=2), load(tmp_path, *lines[::-1], clusters=2)
    assert one.log.fingerprint == other.log.fingerprint
    assert categories_of(one) == categories_of(other)
    assert rules_of(one) == rules_of(other)


# Categories

WORDS = ("MUG", "LAMP", "CARD", "CANDLE", "CLOCK")
COLOURS = ("RED", "BLUE", "GREEN", "PINK", "WHITE", "BLACK")
THINGS = [f"{colour} {word}" for word in WORDS for colour in COLOURS]
ITEMS = [(f"2300{n:02}"[-5:], title) for n, title in enumerate(THINGS)]


def shop(last_day: int) -> list[tuple[Any, ...]]:
    """Give a log of a shop that sells two more things every day, and changes titles on day 8."""
    lines = []
    for day in range(1, last_day + 1):
        for n, (code, title) in enumerate(ITEMS[: 8 + 2 * day]):
            text = f"{title} NEW" if day >= 8 and n % 3 == 0 else title
            customer = str(100 + n % 4)
            lines.append(line(f"{day}{n:02}", (code, text), 2, day, customer))
    lines.append(line("C1", ITEMS[0], -2, 9, "100"))  # of what was bought on day 8 or before
    return [one for one in lines if int(one[4].split("/")[1]) <= last_day]


def cutoff(day: int) -> np.datetime64:
    return np.datetime64(f"2010-12-{day:02}", "ms")


@pytest.mark.parametrize("day", [3, 7, 9])
def test_clusters_before_a_cutoff_are_those_of_a_log_that_ends_there(
    tmp_path: Path, day: int
) -> None:
    whole, ended = load(tmp_path, *shop(11)), load(tmp_path, *shop(day - 1))
    known = whole.known_before(cutoff(day))
    assert categories_of(known) == categories_of(ended)
    assert known.catalog.categories == ended.catalog.categories


def test_later_items_get_the_nearest_of_the_earlier_clusters(tmp_path: Path) -> None:
    whole = load(tmp_path, *shop(11), clusters=3)
    known, compared = whole.known_before(cutoff(4)), whole.with_categories_before(cutoff(4))
    assert known.catalog.categories == compared.catalog.categories
    assert len(known.catalog.categories) == 3
    assert known.catalog.n_items < compared.catalog.n_items == whole.catalog.n_items
    assert categories_of(known).items() <= categories_of(compared).items()
    assert compared.catalog.has_category.all()
    assert len(compared.log) == len(whole.log)


def test_later_items_are_known_by_their_first_title(tmp_path: Path) -> None:
    renamed = [
        line(f"N{day}", ("99001", "GREEN CHAIR" if day > 6 else "DESK LAMP"), 1, day)
        for day in (6, 8, 9)
    ]
    whole = load(tmp_path, *shop(11), *renamed, clusters=3)
    compared = whole.with_categories_before(cutoff(4))
    titles = [one.catalog.titles[one.catalog.item_index("99001")] for one in (whole, compared)]
    assert titles == ["Green Chair", "Desk Lamp"]
    assert len(compared.log) == len(whole.log)


def test_clusters_stay_at_later_cutoffs_and_are_found_anew_at_earlier_ones(tmp_path: Path) -> None:
    whole = load(tmp_path, *shop(11), clusters=4)
    compared = whole.with_categories_before(cutoff(4))
    later = compared.known_before(cutoff(8))
    assert later.catalog.categories == compared.catalog.categories
    assert categories_of(whole.known_before(cutoff(4))).items() <= categories_of(later).items()
    earlier = compared.known_before(cutoff(2))
    assert categories_of(earlier) == categories_of(whole.known_before(cutoff(2)))


def test_categories_that_are_left_out_stay_out_at_later_cutoffs(tmp_path: Path) -> None:
    compared = load(tmp_path, *shop(11), clusters=4).with_categories_before(cutoff(4))
    gone = compared.catalog.categories[0]
    later = compared.without_categories([gone]).known_before(cutoff(8))
    assert later.catalog.categories == compared.catalog.categories[1:]


def test_an_item_that_was_taken_back_later_was_sold_all_the_same(tmp_path: Path) -> None:
    lines = [*LINES, line("9", ("22009", "CLOCK"), day=2), line("C9", ("22009", "CLOCK"), -1, 5)]
    dataset = load(tmp_path, *lines)
    assert "Clock" in dataset.known_before(cutoff(4)).catalog.titles
    assert "Clock" not in [title for _, title in events_of(dataset)]


def test_there_are_as_many_clusters_as_are_asked_for_or_one_for_five_titles(
    tmp_path: Path,
) -> None:
    for options, n in (({}, 6), ({"clusters": 4}, 4), ({"clusters": 500}, 30)):
        dataset = load(tmp_path, *shop(11), **options)
        assert dataset.catalog.n_items == 30
        assert dataset.catalog.n_categories == n
    assert "categories are 30 clusters of titles" in rules_of(dataset)


def test_no_clusters_are_refused_and_so_are_those_of_a_log_with_categories(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 clusters are none"):
        load(tmp_path, *LINES, clusters=0)
    path = write_log(tmp_path, "user_id,item_id,timestamp,categories\na,x,2024-01-01,A\n")
    with pytest.raises(DataError, match="leave clusters out"):
        load_dataset(path, clusters=3)
