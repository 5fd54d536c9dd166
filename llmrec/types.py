"""Types that every layer shares: arrays by element type, and which items may be listed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
TimeArray = npt.NDArray[np.datetime64]

RepeatPolicy = Literal["allow", "exclude"]
Shelf = Literal["all", "new"]  # which items are ranked; new: nobody has taken them yet
