"""Shards made by actors of Ray, each of which loads the engine once."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

import numpy as np

from llmrec.batch.maker import ShardMaker, ShardReport
from llmrec.errors import DataError, MissingExtraError

LOCAL = "local"
ANSWER_SECONDS = 10


class _Actor:
    """Makes the shards of a batch of `ray.data`: numbers in, reports out."""

    def __init__(self, maker: ShardMaker) -> None:
        self._make = maker.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        reports = [asdict(self._make(int(shard))) for shard in batch["shard"]]
        return {name: np.array([one[name] for one in reports]) for name in reports[0]}


def make_on_ray(
    maker: ShardMaker, shards: Sequence[int], workers: int, address: str
) -> Iterator[ShardReport]:
    """Make shards on a Ray cluster that sees the same folders, and yield each report.

    Parameters
    ----------
    workers
        Actors at most.
    address
        Of a running cluster, such as "ray://head:10001" or "auto"; "local" starts one here.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    DataError
        If no cluster answers there.
    """
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise MissingExtraError("Ray is not installed: pip install 'llmrec[ray]'.") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, workers, address)
    try:
        resources: dict[str, float] = ray.cluster_resources()
        n_actors, options = plan_actors(resources, workers, maker.use_model)
        ray.data.DataContext.get_current().enable_progress_bars = False
        pool = ray.data.ActorPoolStrategy(size=n_actors)
        numbers = ray.data.from_items([{"shard": shard} for shard in shards])
        made = numbers.repartition(len(shards)).map_batches(
            _Actor, fn_constructor_args=(maker,), batch_size=1, compute=pool, **options
        )
        for row in made.iter_rows():
            yield ShardReport(**row)
    finally:
        if is_ours:
            ray.shutdown()


def plan_actors(
    resources: Mapping[str, float], workers: int, use_model: bool
) -> tuple[int, dict[str, Any]]:
    """Give how many actors there can be, and what each asks for, by what a cluster has.

    One processor is left for what feeds them: where actors take all, they wait for ever. A language
    model gets a GPU for itself where there are some.
    """
    n_actors = min(workers, int(resources.get("CPU", 1)) - 1)
    n_gpus = int(resources.get("GPU", 0)) if use_model else 0
    if n_gpus:
        return max(1, min(n_actors, n_gpus)), {"num_gpus": 1}
    return max(1, n_actors), {}


def _connect(ray: Any, workers: int, address: str) -> None:
    """Start a cluster here, or join a running one; DataError if none answers."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if address == LOCAL:
            ray.init(num_cpus=workers + 1, include_dashboard=False, **quiet)
        else:
            _require_answer(address)
            ray.init(address=address, **quiet)
    except (RuntimeError, ValueError, OSError) as error:  # a ConnectionError is an OSError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"no Ray cluster answers at {address!r}: {reason}") from error


def _require_answer(address: str) -> None:
    """Raise an OSError if nobody listens at a host and port: Ray would try for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
