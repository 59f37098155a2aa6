"""JSON text in which NaN and infinities are null, since JSON has neither."""

from __future__ import annotations

import json
import math
from typing import Any


def dump_json(values: Any) -> str:
    """JSON text in which NaN and infinities are null, since JSON has neither."""
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be written
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
