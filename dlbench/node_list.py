"""Node names in Slurm's short form: `n[1-3,7]` stands for n1, n2, n3, n7."""

import math
import re
from collections.abc import Iterable, Iterator
from itertools import product

from dlbench.errors import BadInput
from dlbench.safe_names import short_repr

#: No cluster has more nodes than this; a mistyped range would fill the memory.
MAX_NODES = 100_000
_NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_NUMBER_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def expand_nodes(text: str) -> list[str]:
    """Expand a node list in Slurm's syntax to all names, each once, in order. Raises BadInput if it is none."""
    names: dict[str, None] = {}
    # At the commas that stand outside brackets.
    for part in filter(None, map(str.strip, re.split(r",(?![^\[]*\])", text))):
        pieces = [list(_expand_node_pattern(piece, text)) for piece in re.split(r"(\[[^][]*\])", part) if piece]
        if len(names) + math.prod(map(len, pieces)) > MAX_NODES:
            raise BadInput(f"the node list {short_repr(text)} has more than {MAX_NODES} nodes")
        names |= dict.fromkeys("".join(words) for words in product(*pieces))
    for name in names:
        if not _NODE_NAME.fullmatch(name):
            raise BadInput(
                f"{short_repr(name)} in the node list {short_repr(text)} is not a node name; write for example n[1-3,7]"
            )
    if not names:
        raise BadInput("the node list is empty; write n[1-3,7]")
    return list(names)


def compress_nodes(names: Iterable[str]) -> str:
    """The shortest list in Slurm's syntax that holds these names: ranges of their last number."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    folded: list[str] = []
    for name in sorted(set(names)):
        found = re.fullmatch(r"(.*?)([0-9]{1,9})([^0-9]*)", name)
        if not found:
            folded.append(name)
            continue
        number = found[2]
        # n1 to n10 form one range; n01 and n1 are two names.
        width = len(number) if number.startswith("0") else 0
        groups.setdefault((found[1], found[3], width), []).append(int(number))
    for (head, tail, width), numbers in sorted(_merge_zero_padded(groups).items()):
        ranges = [
            "-".join(f"{number:0{width}}" for number in dict.fromkeys(ends))
            for ends in _consecutive_ranges(sorted(numbers))
        ]
        folded.append(f"{head}{ranges[0] if len(numbers) == 1 else '[' + ','.join(ranges) + ']'}{tail}")
    return ",".join(sorted(folded, key=natural_sort_key))


def _merge_zero_padded(groups: dict[tuple[str, str, int], list[int]]) -> dict[tuple[str, str, int], list[int]]:
    """Merge groups of numbers with the same number of digits, such as 08, 09 and 10."""
    merged = {key: list(numbers) for key, numbers in groups.items() if key[2]}
    for (head, tail, _), numbers in ((key, own) for key, own in groups.items() if not key[2]):
        for number in numbers:
            padded = (head, tail, len(str(number)))
            merged.setdefault(padded if padded in merged else (head, tail, 0), []).append(number)
    return merged


def _consecutive_ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def _expand_node_pattern(piece: str, text: str) -> Iterator[str]:
    """The texts that a piece stands for: itself, or the numbers of a bracket."""
    if not piece.startswith("["):
        yield piece
        return
    for part in piece[1:-1].split(","):
        found = _NUMBER_RANGE.fullmatch(part.strip())
        if not found:
            raise BadInput(
                f"{short_repr(piece)} in the node list {short_repr(text)} is not a range of numbers; write for example "
                f"n[1-3,7]"
            )
        first, last = found[1], found[2] or found[1]
        if int(last) < int(first):
            raise BadInput(f"the range {part.strip()} in the node list {short_repr(text)} runs backwards")
        if int(last) - int(first) >= MAX_NODES:
            raise BadInput(f"the node list {short_repr(text)} has more than {MAX_NODES} nodes")
        width = len(first) if first.startswith("0") else 0
        yield from (f"{number:0{width}}" for number in range(int(first), int(last) + 1))


def natural_sort_key(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts n2 before n10."""
    return [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in re.split(r"([0-9]+)", name) if word]
