"""Names that become paths: each is checked here first, since a file that somebody sent may hold any text."""

from __future__ import annotations

import unicodedata

#: File systems take names of up to 255 bytes, and dlbench adds to them (`.NAME.parquet.PID.tmp`).
MAX_BYTES = 200


def why_unsafe(name: object) -> str:
    """Why `name` must not become the name of a file or folder; "" where it may.

    It may hold letters and marks of any language, but neither separators nor control characters, and cannot lead out of
    its folder or hide in it.
    """
    if not isinstance(name, str):
        return f"it is {'null' if name is None else 'no text'}"
    if not name:
        return "it is empty"
    if name.startswith("."):
        return "it begins with a full stop"
    if any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return "it holds '/', '\\' or a control character"
    if len(name.encode()) > MAX_BYTES:
        return f"it has {len(name.encode())} bytes, and may have {MAX_BYTES}"
    return ""


def excerpt(value: object, limit: int = 80) -> str:
    """A value as Python writes it, as a message quotes it: on one line, and never longer than `limit` characters."""
    try:
        text = repr(value[:limit] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # numbers with thousands of digits, lists in lists in lists
        return f"a value of type {type(value).__name__}, too large to print"
    return text if len(text) <= limit else f"{text[: limit - 5]}{text[0]} ..."
