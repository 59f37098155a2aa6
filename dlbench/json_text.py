"""JSON reading and writing: limited nesting depth, and null for NaN, which JSON lacks."""

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text

#: Values inside of values inside of values: no file of dlbench comes near.
_MAX_DEPTH = 50


def dump_json(values: Any) -> str:
    """Format as JSON; NaN and infinities become null, because JSON has neither."""
    return json.dumps(_replace_nan(values), indent=1, ensure_ascii=False, allow_nan=False)


def _replace_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be written
    if isinstance(value, dict):
        return {str(k): _replace_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(v) for v in value]
    return value


def load_json(text: str) -> Any:
    """Parse JSON. Raises ValueError if it is none, is nested too deeply, or has a number with thousands of digits."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [values]
    for _ in range(_MAX_DEPTH):
        # Checked by level: printing values is recursive, which Python limits.
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, list | dict)
        ]
        level = list(chain.from_iterable(inner))
        if not level:
            return values
    raise ValueError("it is nested too deeply")


def read_json_object(file: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if the file cannot be read or contains something else."""
    try:
        values = load_json(read_text(file))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
