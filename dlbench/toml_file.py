"""Reading and checking of TOML files; one-line errors contain file, line and key."""

import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dlbench.errors import BadInput, UnknownName
from dlbench.safe_names import short_repr

#: Maximum size; suites, profiles and price lists are far smaller.
MAX_FILE_BYTES = 1_000_000
#: Name of each type in messages.
TYPE_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


@dataclass(frozen=True)
class TomlFile:
    """Values of a TOML file, with the line of each key."""

    path: Path
    text: str
    values: dict[str, Any]

    def file_and_line(self, key: str, table: str = "") -> str:
        """Return `FILE:LINE` of the key in its table (or of the table of that name), of the table, or only the file."""
        current, table_line = "", 0
        for number, line in enumerate(self.text.splitlines(), start=1):
            head = re.match(r"\s*\[+\s*([\w.-]+)\s*\]", line)
            if head:
                current = head.group(1)
                if current in (table, key):
                    table_line = table_line or number
                    if not table:
                        return f"{self.path}:{number}"
            elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
                return f"{self.path}:{number}"
        return f"{self.path}:{table_line}" if table_line else str(self.path)

    def get(self, key: str, kind: type, default: Any, wanted: str = "") -> Any:
        """Return the value of a top-level key, with type check; see `require_type`."""
        if key not in self.values:
            return default
        return require_type(self.values[key], kind, key, self.file_and_line(key), wanted)

    def table(self, name: str) -> dict[str, Any]:
        """Return the table of this name; empty if missing."""
        return dict(self.get(name, dict, {}, f"a table ([{name}])"))

    def require_known(self, keys: Iterable[str], known: Iterable[str], table: str = "", kind: str = "key") -> None:
        """Raise UnknownName for the first unknown key, with its place and the nearest known name."""
        known = tuple(known)
        for key in keys:
            if key not in known:
                called = f"{kind} in [{table}]" if table and kind == "key" else kind
                raise UnknownName(called, key, known, self.file_and_line(key, table))

    def raise_invalid(self, value: Any, key: str, wanted: str, table: str = "") -> NoReturn:
        """Raise BadInput: the value of this key is invalid."""
        raise_invalid(value, f"{table}.{key}" if table else key, wanted, self.file_and_line(key, table))


def require_type(value: Any, kind: type, name: str, where: str, wanted: str = "") -> Any:
    """Check the type of a value; convert a whole number to float if required.

    Args:
        kind: a type of `TYPE_NAMES`; `wanted` may say more, such as "a list of texts".
        name: of the value; and `where` it stands, or "": both for the message.

    Raises:
        BadInput: the value has another type, or the number is too large.
    """
    if kind in (int, float) and isinstance(value, int) and abs(value) >= 2**63:
        raise BadInput(f"{where}{': ' if where else ''}{name} exceeds the 64-bit range")
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    # In Python, true is an integer.
    if kind is float or not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise_invalid(value, name, wanted or TYPE_NAMES[kind], where)
    return value


def raise_invalid(value: Any, name: str, wanted: str, where: str) -> NoReturn:
    """Raise BadInput: a value is invalid."""
    raise BadInput(f"{where}{': ' if where else ''}{name} is {short_repr(value, 200)}; it must be {wanted}")


def read_toml(file: Path, what: str) -> TomlFile:
    """Read a TOML file, with or without a byte-order mark; `what` names its kind in messages, such as "a suite".

    Raises BadInput, with file and line, if it cannot be read, is too large, or is not TOML.
    """
    try:
        if file.exists() and not file.is_file():
            raise BadInput(f"cannot read {file}: it is not a file")
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise BadInput(f"{file} is larger than {MAX_FILE_BYTES // 1_000_000} MB, too large to be {what}")
        text = content.decode("utf-8-sig")
        return TomlFile(file, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        end = f"(at the end of the file, line {text.count(chr(10)) + 1})"
        raise BadInput(f"{file} is not valid TOML: {str(error).replace('(at end of document)', end)}") from None
    except RecursionError:
        raise BadInput(f"{file} is nested too deeply to be {what}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not valid TOML: it is not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # Python's error for a number with thousands of digits
        raise BadInput(f"{file} is not valid TOML: {error}") from None
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from None
