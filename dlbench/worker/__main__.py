"""`python -m dlbench.worker FOLDER` does the request in FOLDER, see `dlbench.suites.worker_request`.

`python -m dlbench.worker --ahead READ_END WRITE_END MODEL [compiler]` reads FOLDER from stdin after its imports, see
`dlbench.worker.started_ahead`.

`python -m dlbench.worker --probe [MODEL ...]` prints one line of JSON about this machine, and what keeps it from
building these networks.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from dlbench.errors import DlbenchError
from dlbench.exit_codes import BAD_INPUT, OK
from dlbench.suites import worker_request as requests
from dlbench.worker import started_ahead
from dlbench.worker.imports import import_modules
from dlbench.worker.ranks.rank_status import exit_without_teardown

#: Kind of request -> module of `dlbench.worker.jobs`; only the requested one is imported.
_JOB_MODULES = {
    "measure": "measure_case",
    "profile": "profile",
    "train": "train",
    "ceilings": "ceilings",
    "allreduce": "allreduce",
    "predict": "fit_check",
    "fit": "fit_check",
}


def main(arguments: list[str]) -> int:
    """Run the worker; return the exit status."""
    # Kineto prints a start message on stderr, which could become the reported last line.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if arguments[:1] == ["--probe"]:
        return print_machine_facts(arguments[1:])
    if arguments[:1] == ["--ahead"] and len(arguments) >= 4:
        read_end, write_end, model, *compiler = arguments[1:]
        ahead = started_ahead.wait_for_folder(int(read_end), int(write_end), model, bool(compiler))
        if ahead is None:
            return OK  # it was not needed
        arguments = [str(ahead)]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m dlbench.worker FOLDER | --probe [MODEL ...]", file=sys.stderr)
        return BAD_INPUT
    folder = Path(arguments[0])
    try:
        request = requests.read_request(folder)
    except (OSError, ValueError, DlbenchError) as error:
        print(f"{folder / requests.REQUEST_FILE}: {error}", file=sys.stderr)
        return BAD_INPUT
    module = importlib.import_module(f"dlbench.worker.jobs.{_JOB_MODULES[request['kind']]}")
    status: int = module.handle_request(request, folder)
    return status


def print_machine_facts(models: list[str]) -> int:
    """Print as JSON the facts of this machine (`software_and_device_facts`), its key, and facts of these networks."""
    # stdout is reserved for the answer: output of libraries and user code, also from C, goes to stderr.
    answer = os.dup(1)
    os.dup2(2, 1)
    import_modules("torch")
    import torch

    from dlbench.worker.machine.system import software_and_device_facts, system_key, system_keys
    from dlbench.worker.network_check import check_network
    from dlbench.worker.precision import supported_precisions

    networks = {name: check_network(name) for name in models}
    facts = software_and_device_facts()
    kinds = {"cpu", facts["device_kind"]}
    computes = {
        "precisions": {kind: supported_precisions(torch.device(kind)) for kind in sorted(kinds)},
        "torch_threads": torch.get_num_threads(),
    }
    found = {
        "system_key": system_key(facts),
        "system_keys": system_keys(facts),
        "broken_models": {name: network.error for name, network in networks.items() if network.error},
        "network_keys": {name: network.key for name, network in networks.items()},
        "network_files": {name: network.files for name, network in networks.items() if network.files},
    }
    text = json.dumps({**facts, **computes, **found})
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return OK


if __name__ == "__main__":
    exit_without_teardown(main(sys.argv[1:]))
