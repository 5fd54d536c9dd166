"""The three real logs of the benchmarks: two that are embedded, and Online Retail, if it is there.

The environment variable LLMREC_ONLINE_RETAIL says where the published file is.
"""

from __future__ import annotations

import os
import sys

from benchmarks.harness.labels import COMPLETE_JOURNEY, MOVIELENS, ONLINE_RETAIL
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset
from llmrec.data.splits import EvaluationSplits

VARIABLE = "LLMREC_ONLINE_RETAIL"


def available_logs() -> tuple[str, ...]:
    """Name the embedded logs, and Online Retail where the variable says where it is."""
    found = (COMPLETE_JOURNEY, MOVIELENS)
    return (*found, ONLINE_RETAIL) if os.environ.get(VARIABLE) else found


def benchmark_dataset(name: str, *, clusters: int | None = None) -> Dataset:
    """Load a log of the benchmarks, or any other that `load_dataset` knows, as it is.

    Without the file of Online Retail the script ends here, and says what to set.

    Parameters
    ----------
    clusters
        As `load_dataset` takes them; of Online Retail alone.
    """
    if name != ONLINE_RETAIL:
        return load_dataset(name, clusters=clusters)
    path = os.environ.get(VARIABLE)
    if not path:
        sys.exit(f"Set {VARIABLE} to the path of the published Online Retail (.xlsx or a table).")
    if not os.path.exists(path):
        sys.exit(f"{VARIABLE} is {path}, and there is no such file or folder.")
    return load_dataset(path, clusters=clusters)


def evaluation_dataset(name: str) -> Dataset:
    """Load a log with the categories that were known before its tests, see `EvaluationSplits`.

    Clusters of titles are fitted on titles from before the first test; an item that came later has
    the cluster that is nearest to its first title. Categories that are given apart stay.
    """
    return EvaluationSplits.of(benchmark_dataset(name)).dataset
