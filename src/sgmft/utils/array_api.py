"""The functions of an array's own library, by the array API."""

from typing import Any

import array_api_compat
import numpy as np


def array_namespace(x: Any) -> Any:
    """Return the module of an array's functions: NumPy itself from 2.1 on, sooner imported."""
    own = isinstance(x, np.ndarray) and hasattr(np, "astype")
    return np if own else array_api_compat.array_namespace(x)
