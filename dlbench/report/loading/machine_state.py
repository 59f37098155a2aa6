"""Files of MachineState (RRZE-HPC, `machinestate -o FILE`) that lie with results, for the provenance.

results/machinestate/n1.json    one per node; also in the folders of single nodes, results/nodes/n1/machinestate/
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from dlbench.atomic_file import read_text
from dlbench.json_text import load_json
from dlbench.safe_names import short_repr

MACHINE_STATE_FOLDER = "machinestate"
#: So many nodes and properties are read at most; longer values are cut.
_MOST_FILES, _MOST_PROPERTIES, _LONGEST = 1000, 5000, 300
#: One state: a value per property, such as `KernelInfo/Version`.
NodeState = dict[str, str]


def read_node_states(sources: Sequence[str | Path]) -> tuple[dict[str, NodeState], list[str]]:
    """Return the state of each node by its name, and a sentence for each file that cannot be used."""
    states: dict[str, NodeState] = {}
    problems: list[str] = []
    for file in islice(_find_machine_state_files(sources), _MOST_FILES):
        try:
            content = load_json(read_text(file))
            if not isinstance(content, dict) or "MachineState" not in content:
                raise ValueError("it was not written by MachineState")
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            problems.append(f"cannot read {file}: {short_repr(str(words), 200)[1:-1]}; skipped")
            continue
        state = dict(islice(_flatten_nested_values(content), _MOST_PROPERTIES))
        name = state.get("HostInfo/Hostname") or file.stem
        states[name if name not in states else f"{name} ({file.stem})"] = state
    return states, problems


def _find_machine_state_files(sources: Sequence[str | Path]) -> Iterator[Path]:
    for source in sources:
        if Path(source).is_dir():
            for pattern in (f"{MACHINE_STATE_FOLDER}/*.json", f"nodes/*/{MACHINE_STATE_FOLDER}/*.json"):
                yield from sorted(Path(source).glob(pattern))


def _flatten_nested_values(values: dict[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if key == "_meta":  # how MachineState reads it again
            continue
        if isinstance(value, dict):
            yield from _flatten_nested_values(value, f"{prefix}{key}/")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{key}", " ".join(text[:_LONGEST].split())
