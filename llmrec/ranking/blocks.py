"""How many people are scored at a time, so that memory does not grow with people times items."""

from __future__ import annotations

from collections.abc import Iterator

# Up to so many items everybody is scored in one array: it is small, and sums of nets, whose last
# bits depend on who else is in the array, stay as they were when the engines that are shipped were
# fitted (MovieLens has 1,682 items, Complete Journey 3,339).
MAX_SMALL_CATALOG = 5_000
SCORES_PER_BLOCK = 5_000_000  # of all scorers and people of a block: 40 MB


def people_blocks(n_people: int, n_items: int, n_scorers: int) -> Iterator[slice]:
    """Give the people of one block after the other; all at once for a small catalog."""
    size = max(1, n_people)
    if n_items > MAX_SMALL_CATALOG:
        size = max(1, SCORES_PER_BLOCK // (n_items * max(1, n_scorers)))
    for start in range(0, n_people, size):
        yield slice(start, min(start + size, n_people))
