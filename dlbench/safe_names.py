"""Check of names that become paths: a foreign file may contain any text."""

import unicodedata

#: File systems allow names of 255 bytes, and dlbench extends names (`.NAME.parquet.PID.tmp`).
MAX_NAME_BYTES = 200


def why_unsafe_name(name: object) -> str:
    """Return why `name` is not a safe file or folder name; "" if it is safe.

    Letters of any language are allowed, but no separators, control characters, or leading dots.
    """
    if not isinstance(name, str):
        return f"it is {'null' if name is None else 'no text'}"
    if not name:
        return "it is empty"
    if name.startswith("."):
        return "it begins with a dot"
    if any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return "it contains '/', '\\' or a control character"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it has {len(name.encode())} bytes; the maximum is {MAX_NAME_BYTES}"
    return ""


def short_repr(value: object, limit: int = 80) -> str:
    """Format a value for a message: as Python writes it, on one line, at most `limit` characters."""
    try:
        text = repr(value[:limit] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # numbers with thousands of digits, lists in lists in lists
        return f"a value of type {type(value).__name__}, too large to print"
    return text if len(text) <= limit else f"{text[: limit - 5]}{text[0]} ..."
