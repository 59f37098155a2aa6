"""Lists of TCP ports, as DLBENCH_MASTER_PORTS holds one."""

from __future__ import annotations

from dlbench.errors import BadInput


def ports_of(text: str) -> list[int]:
    """The ports that a list such as "29500,29510-29520" names; none of an empty text.

    Raises:
        BadInput: a part of it is no port.
    """
    found: list[int] = []
    for part in filter(None, (word.strip() for word in text.split(","))):
        low, _, high = part.partition("-")
        # `isdigit` is also true of '²', which is no number.
        if not low.isdecimal() or (high and not high.isdecimal()) or not 0 < int(low) <= int(high or low) < 65_536:
            raise BadInput(f"'{part}' in the list of ports '{text}' is no port and no range such as 29500-29510.")
        found += range(int(low), int(high or low) + 1)
    return found
