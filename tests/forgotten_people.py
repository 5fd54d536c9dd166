"""A small shop and all that is made of its log, and what of it still tells of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from llmrec import Dataset, load_dataset
from llmrec.data.keyed_ids import key_of
from llmrec.data.options import ReadingOptions
from llmrec.data.splits import split_timelines
from llmrec.engine import InterestEngine
from llmrec.engine_config import EngineParts
from llmrec.engine_resolve import with_log
from llmrec.engine_settings import EngineSettings
from llmrec.evaluation.forecast_store import save_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forgetting import ForgetPlaces
from llmrec.language.prefixes import prefix_file
from llmrec.ranking.fitting import build_blend
from llmrec.serve.store import EventStore, StoredEvent
from llmrec.training.dataset import save_examples
from tests.training.tiny_timelines import PRIOR, make_codec
from tests.worlds import CATEGORIES, START

# Of each kind of statistics that are solved from sums over people.
STATISTICS = (
    *("RecentPopularity", "PersonalRepeat", "PopularityTrend", "Ease", "PureSVD"),
    *("SparseEaseByDays", "Cosine", "Successors", "NextItems", "TitleKernel", "EaseWithText"),
)
FORMATS = ("csv", "tsv", "jsonl", "parquet")
READING = ReadingOptions(period="7D", noun="films", person="viewer", repeat="allow")
N_ITEMS = 20


@dataclass(frozen=True)
class Shop:
    """The folder of a log, and what was made of it, beside each other."""

    folder: Path

    @property
    def places(self) -> ForgetPlaces:
        """Where people of the shop may be."""
        return ForgetPlaces(
            str(self.folder / "log"),
            READING,
            engines=(self.folder / "engine",),
            stored=(self.folder / "stored",),
            examples=(self.folder / "examples",),
            prompts=(self.folder / "prompts",),
            database=str(self.folder / "events.db"),
        )

    def load(self) -> Dataset:
        """Read the log."""
        return READING.load(str(self.folder / "log"))

    def ids_held(self, user_id: str, hashed: str) -> list[str]:
        """Name the files that hold a person's id or its hash, in bytes or in values of a table."""
        held = []
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file() or path.name.endswith(".forgotten"):
                continue
            content = path.read_bytes()
            if path.suffix == ".parquet":  # whose pages are compressed
                content += repr(pq.read_table(path).to_pydict()).encode()
            if user_id.encode() in content or hashed.encode() in content:
                held.append(str(path.relative_to(self.folder)))
        return held


def made_up_log(rng: np.random.Generator, n_people: int) -> pd.DataFrame:
    """People with ids that occur nowhere by chance, a taste each, and events in eight weeks."""
    rows = []
    for user in rng.choice(16**6, n_people, replace=False):
        taste = rng.dirichlet(np.full(N_ITEMS, 0.5))
        seconds = np.sort(rng.choice(56 * 86_400, int(rng.integers(25, 45)), replace=False))
        for item, second in zip(rng.choice(N_ITEMS, len(seconds), p=taste), seconds, strict=True):
            time = START + np.timedelta64(int(second), "s")
            rows.append((f"person-{user:06x}", f"i{item:02d}", str(time)))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def write_log(folder: Path, log: pd.DataFrame, kind: str) -> None:
    """Write a folder of events in a format, and of items."""
    folder.mkdir(parents=True)
    path = folder / f"events.{kind}"
    if kind == "parquet":
        log.astype({"timestamp": "datetime64[ms]"}).to_parquet(path, index=False)
    elif kind == "jsonl":
        log.to_json(path, orient="records", lines=True)
    else:
        log.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    items = {
        "item_id": [f"i{item:02d}" for item in range(N_ITEMS)],
        "title": [f"Title {item % 7} of {item}" for item in range(N_ITEMS)],
        "categories": [CATEGORIES[item % 5] for item in range(N_ITEMS)],
    }
    pd.DataFrame(items).to_csv(folder / "items.csv", index=False)


def statistics_engine(data: Dataset, cutoff: np.datetime64) -> InterestEngine:
    """Make an engine of counting and of statistics that were solved on a log up to a cutoff."""
    known = data.known_before(cutoff)
    parts = EngineParts(
        known,
        cutoff,
        pd.Index([], dtype="str"),
        with_log(replace(EngineSettings(model=""), noun="films"), known, cutoff),
        DecayedDirichlet(),
        None,
        build_blend(known, cutoff, dict.fromkeys(STATISTICS, 1.0)),
    )
    return InterestEngine(parts)


def make_shop(folder: Path, seed: int, n_people: int = 40) -> Shop:
    """Write a log, and an engine, stored forecasts, examples, prompts and a server's events."""
    rng = np.random.default_rng(seed)
    shop = Shop(folder)
    write_log(folder / "log", made_up_log(rng, n_people), FORMATS[seed % len(FORMATS)])
    data = shop.load()
    cutoff = data.log.timestamp.max() + np.timedelta64(1, "ms")
    engine = statistics_engine(data, cutoff)
    engine.save_pretrained(folder / "engine")
    people = engine.histories()
    save_forecasts(folder / "stored", data, people, engine.forecast_many(people))
    people_windows, validation = split_timelines(data)
    codec = make_codec(data)
    save_examples(folder / "examples", data, codec, PRIOR, people_windows, validation)
    (folder / "prompts").mkdir()
    store = EventStore(str(folder / "events.db"))
    for number, user in enumerate(data.log.user_ids):
        prefix_file(folder / "prompts", user).write_text(f"what was read of {user}")
        store.add([sent(user, number % 4)])
    store.close()
    return shop


def sent(user_id: str, n: int) -> Sequence[StoredEvent]:
    """Give events of a person that a server was sent."""
    return [StoredEvent(user_id, f"i{item:02d}", 1_700_000_000_000 + item) for item in range(n)]


def hash_of(shop: Shop, user_id: str) -> str:
    """Hash an id with the key of a shop's log."""
    return key_of(load_dataset(shop.folder / "log")).hash(user_id)
