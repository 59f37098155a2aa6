"""TOML files that a person wrote: read whole, or refused in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput

#: No suite, profile or price list comes near: a larger file is something else.
MAX_BYTES = 1_000_000


def read_toml(file: Path, what: str) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and its values.

    Args:
        file: with or without a byte-order mark.
        what: the file is to be, for messages, such as "a suite".

    Raises:
        BadInput: it cannot be read, is too large, or is no TOML; the message names file and line.
    """
    try:
        if file.exists() and not file.is_file():
            raise BadInput(f"cannot read {file}: it is no file")
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadInput(f"{file} is larger than {MAX_BYTES // 1_000_000} MB, too large to be {what}")
        text = content.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"(at its end, line {text.count(chr(10)) + 1})"
        raise BadInput(f"{file} is not valid TOML: {str(error).replace('(at end of document)', end)}") from None
    except RecursionError:
        raise BadInput(f"{file} is nested too deeply to be {what}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not valid TOML: it is not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # Python's, of a number with thousands of digits
        raise BadInput(f"{file} is not valid TOML: {error}") from None
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from None
