"""The people whom a server was asked to delete: salted hashes of their ids, and when it was."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator

import sqlalchemy as sa

ROWS_PER_STATEMENT = 500  # SQLite takes 32,766 values in one
META = sa.MetaData()
FORGOTTEN = sa.Table(
    "llmrec_forgotten",
    META,
    sa.Column("user_id", sa.Text, primary_key=True),  # its hash, see `_hash_id`
    sa.Column("time", sa.BigInteger, nullable=False),
)
_SALTED = "salted-"


def find_forgotten(connection: sa.Connection, user_ids: set[str]) -> dict[str, int]:
    """Give the time at which people were deleted, of those of some who were."""
    found = dict[str, int]()
    if (salt := _find_salt(connection)) is None:
        return found
    hashed = {_hash_id(salt, user_id): user_id for user_id in user_ids}
    for block in blocks(set(hashed)):
        wanted = sa.select(FORGOTTEN).where(FORGOTTEN.c.user_id.in_(block))
        found |= {hashed[row.user_id]: row.time for row in connection.execute(wanted)}
    return found


def hash_new_id(connection: sa.Connection, user_id: str) -> str:
    """Hash an id with the salt of those that are there; with a new one, if there are none."""
    return _hash_id(_find_salt(connection) or secrets.token_hex(16), user_id)


def hash_earlier_ids(connection: sa.Connection) -> None:
    """Hash the ids of people that versions up to 0.4 remembered as they are."""
    ids = FORGOTTEN.c.user_id
    plain = connection.scalars(sa.select(ids).where(ids.not_like(f"{_SALTED}%"))).all()
    for user_id in plain:
        hashed = hash_new_id(connection, user_id)
        connection.execute(sa.update(FORGOTTEN).where(ids == user_id).values(user_id=hashed))


def blocks(values: set[str]) -> Iterator[list[str]]:
    """Give values in blocks that a statement may hold."""
    ordered = sorted(values)
    for start in range(0, len(ordered), ROWS_PER_STATEMENT):
        yield ordered[start : start + ROWS_PER_STATEMENT]


def _find_salt(connection: sa.Connection) -> str | None:
    """Give the salt that all hashes have; None: there is none."""
    ids = FORGOTTEN.c.user_id
    first = connection.scalar(sa.select(ids).where(ids.like(f"{_SALTED}%")).limit(1))
    return None if first is None else first.split("-")[1]


def _hash_id(salt: str, user_id: str) -> str:
    """Give what stands for a person who was deleted; who has the salt, too, can test a guess."""
    digest = hashlib.blake2b(user_id.encode(), salt=bytes.fromhex(salt), digest_size=16)
    return f"{_SALTED}{salt}-{digest.hexdigest()}"
