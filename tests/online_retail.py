"""A made-up file with the columns of the published Online Retail, whose titles tell tastes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

THINGS = ("tea cup", "paper bag", "wooden clock", "glass vase")
COLOURS = ("red", "blue", "green", "white", "black", "pink", "gold", "silver", "orange", "purple")
LAUNCHED = {"pink": 3, "gold": 4, "silver": 5, "orange": 6, "purple": 7}  # after 28-day spans
START, N_SPANS = np.datetime64("2010-12-01T09:00", "m"), 8


def write_online_retail(
    folder: Path, n_customers: int, launched: dict[str, int] | None = None
) -> Path:
    """Write eight spans of 28 days in which everybody buys six items, mostly of one thing.

    ``launched`` are the colours that come later, and after how many spans.
    """
    rng, rows = np.random.default_rng(0), []
    launched = LAUNCHED if launched is None else launched
    for customer in range(n_customers):
        for span in range(N_SPANS):
            known = [place for place, one in enumerate(COLOURS) if launched.get(one, 0) <= span]
            day = START + np.timedelta64(28 * span + customer % 28, "D")
            taken = set(rng.choice(len(known), min(6, len(known)), replace=False).tolist())
            for place in sorted(known[one] for one in taken):
                thing = (customer + (rng.random() < 0.2)) % len(THINGS)
                code = f"{10_000 + 100 * thing + place}"
                title = f"{COLOURS[place]} {THINGS[thing]}".upper()
                rows.append((f"{len(rows)}", code, title, 1, day, 2.5, 12_000 + customer, "France"))
    columns = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice"]
    frame = pd.DataFrame(rows, columns=[*columns, "CustomerID", "Country"])
    path = folder / "online-retail.parquet"
    frame.to_parquet(path)
    return path
