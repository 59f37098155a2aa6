"""Lists of TCP ports, as in DLBENCH_MASTER_PORTS."""

from dlbench.errors import BadInput


def parse_ports(text: str) -> list[int]:
    """Parse ports such as "29500,29510-29520"; empty for an empty text. Raises BadInput if a part is not a port."""
    found: list[int] = []
    for part in filter(None, (word.strip() for word in text.split(","))):
        low, _, high = part.partition("-")
        # `isdigit` is also true for '²', which `int` rejects.
        if not low.isdecimal() or (high and not high.isdecimal()) or not 0 < int(low) <= int(high or low) < 65_536:
            raise BadInput(f"'{part}' in the list of ports '{text}' is not a port or a range such as 29500-29510.")
        found += range(int(low), int(high or low) + 1)
    return found
