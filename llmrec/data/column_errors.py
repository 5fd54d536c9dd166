"""What pandas or Arrow cannot do with a column, as an error that names the column."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llmrec.errors import DataError, LlmrecError


@contextmanager
def naming_column(name: object) -> Iterator[None]:
    """Turn an error of pandas, numpy or Arrow into a DataError that names the column it is about.

    Rules that know what is wrong come first; this is for values that none of them expects, such as
    a decimal that must not be compared.
    """
    try:
        yield
    except LlmrecError:
        raise
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} holds values that cannot be read ({type(error).__name__}: "
            f"{str(error)[:80]}). Give texts, numbers or times of one type."
        ) from error
