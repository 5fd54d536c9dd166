"""A made-up log of a news site in the format of MIND, whose best order of what is shown is known.

Every reader has one topic, and clicks whatever of it is shown, and nothing else. Articles live for
`LIFE` hours, and half of the readers share topic 0, so popularity knows a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.data.readers import load_dataset
from llmrec.types import FloatArray
from tests.data.log_files import write_files

N_TOPICS, LIFE = 6, 6
_WORDS = (
    "goal league coach striker",
    "senate vote ballot minister",
    "recipe oven butter garlic",
    "rocket orbit comet telescope",
    "album guitar concert singer",
    "shares market bank profit",
)
_START = np.datetime64("2019-11-11T00:00:00", "s")


def topic_of_title(title: str) -> int:
    """Give the topic of an article by the first word of its title."""
    return next(topic for topic, words in enumerate(_WORDS) if title.split()[0] in words.split())


def topic_of_reader(user_id: str) -> int:
    """Give the one topic that a reader clicks."""
    number = int(user_id[1:])
    return 0 if number % 2 else number // 2 % N_TOPICS


class BestOrder:
    """Scores the articles of a reader's topic above all others: the best order there is."""

    name = "best order"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) 0 for articles of the reader's topic, -1 for others."""
        topics = np.array([topic_of_title(title) for title in histories[0].catalog.titles])
        own = np.array([topic_of_reader(history.user_id) for history in histories])
        return -(topics != own[:, None]).astype(np.float64)


def write_news_log(
    folder: Path, n_readers: int = 40, n_hours: int = 48, n_lists: int = 12, seed: int = 0
) -> Path:
    """Write ``news.tsv`` and ``behaviors.tsv``, its rows in no order, and give the folder."""
    rng = np.random.default_rng(seed)
    news, born = [], []
    for hour in range(-LIFE, n_hours):
        for topic in range(N_TOPICS):
            words = " ".join(rng.permutation(_WORDS[topic].split())[:2])
            news.append(
                f"N{len(news)}\t{'sports' if topic < 3 else 'money'}\tsub\t{words} {len(news)}\t"
                'about\thttps://news\t[{"Label": "X", "WikidataId": "Q1"}]\t[]\n'
            )
            born.append(hour)
    topics, hours = np.arange(len(news)) % N_TOPICS, np.array(born)
    rows = []
    for reader in range(n_readers):
        user_id = f"U{reader}"
        own = topic_of_reader(user_id)
        history = " ".join(f"N{item}" for item in np.flatnonzero((topics == own) & (hours < 0))[:3])
        for second in rng.integers(0, n_hours * 3600, n_lists):
            age = second / 3600 - hours
            alive = np.flatnonzero((age >= 0) & (age < LIFE))
            shown = rng.permutation(alive)[: rng.integers(4, 13)]
            answers = " ".join(f"N{item}-{int(topics[item] == own)}" for item in shown)
            time = (_START + int(second)).item().strftime("%m/%d/%Y %I:%M:%S %p")
            rows.append(f"{user_id}\t{time}\t{history}\t{answers}\n")
    order = rng.permutation(len(rows))
    behaviors = "".join(f"{place}\t{rows[row]}" for place, row in enumerate(order))
    return write_files(folder, {"news.tsv": "".join(news), "behaviors.tsv": behaviors})


def news_dataset(folder: Path, seed: int = 0) -> Dataset:
    """Write and read a log of a news site."""
    return load_dataset(write_news_log(folder, seed=seed))
