"""`dlbench allreduce`: all-reduce bandwidth over message sizes."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from dlbench.commands import arguments
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    allreduce = arguments.add_command(
        commands, "allreduce", _run_allreduce_command, "--devices-per-node 4 --max-bytes 268435456"
    )
    allreduce.add_argument("--nodes", type=arguments.parse_count, default=1, help="number of nodes (default: 1)")
    allreduce.add_argument(
        "--devices-per-node", type=arguments.parse_count, default=2, help="ranks per node (default: 2)"
    )
    allreduce.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="(default: auto)")
    backends = ("auto", "nccl", "gloo", "mpi")
    allreduce.add_argument(
        "--backend", choices=backends, default="auto", help="backend of torch.distributed (default: auto)"
    )
    allreduce.add_argument(
        "--launcher", default="local", help="rank launcher: local, torchrun, mpirun or srun (default: local)"
    )
    allreduce.add_argument(
        "--min-bytes", type=arguments.parse_count, default=4 * 2**10, help="smallest message in bytes (default: 4 KiB)"
    )
    allreduce.add_argument(
        "--max-bytes", type=arguments.parse_count, default=64 * 2**20, help="largest message in bytes (default: 64 MiB)"
    )
    allreduce.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="time limit (default: 300)")
    arguments.add_results_folder(allreduce)
    arguments.add_path(allreduce, "--folder", help="working folder; for several nodes, on a disk that all nodes share")
    arguments.add_format_option(allreduce)


def _run_allreduce_command(options: argparse.Namespace) -> None:
    from dlbench.errors import BadInput, DlbenchError
    from dlbench.launch import launchers, results_folder, worker_process
    from dlbench.report.chapters.bounds_tables import all_reduce_table
    from dlbench.results import bounds_records, bounds_schema
    from dlbench.suites.case import Case, Protocol

    results_folder.require_writable_folder(options.results)
    several = options.nodes * options.devices_per_node > 1
    case = Case(
        "lenet5",  # no network is built; the case only defines ranks and devices
        device=options.device,
        nodes=options.nodes,
        devices_per_node=options.devices_per_node,
        backend="gloo" if options.backend == "auto" and not several else options.backend,
        protocol=Protocol(timeout_s=options.timeout),
    )
    launcher = launchers.find_launcher(options.launcher)
    launchers.check_launcher(launcher, [case])
    if options.min_bytes > options.max_bytes:
        raise BadInput(f"--min-bytes {options.min_bytes} is above --max-bytes {options.max_bytes}; swap them")
    sizes = [options.min_bytes * 2**i for i in range(64) if options.min_bytes * 2**i <= options.max_bytes]
    with tempfile.TemporaryDirectory(prefix="dlbench-allreduce-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        request = {"kind": "allreduce", "case": case.to_dict(), "sizes_bytes": sizes}
        argv = launcher(case, folder)
        try:
            text = worker_process.run_in_worker(request, folder, options.timeout, argv=argv, world_size=case.world_size)
        except worker_process.WorkerFailed as error:
            raise DlbenchError(f"the all-reduce measurement failed: {error}") from None
    run_id, started_at = arguments.new_run_name()
    run = bounds_records.parse_run_json(bounds_records.AllReduceRun, text, run_id=run_id, started_at=started_at)
    part = bounds_schema.write_all_reduces(options.results, run)
    frame = bounds_schema.read_run_frame([part], bounds_schema.ALL_REDUCE_SCHEMA)
    arguments.print_tables(options.format, all_reduce_table(frame))
    if run.warning:
        say(run.warning)
    say(f"\nall-reduces: {part}")
