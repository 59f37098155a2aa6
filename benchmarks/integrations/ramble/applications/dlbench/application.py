"""Ramble application: runs a suite and takes throughput, interval and status of each case as figures of merit."""

from ramble.appkit import *  # noqa: F403


class Dlbench(ExecutableApplication):  # noqa: F405
    """Benchmark of deep learning with intervals, energy and bounds."""

    name = "dlbench"

    executable(  # noqa: F405
        "run",
        ["{dlbench} run {suite} --results {experiment_run_dir}/results {dlbench_options}"],
        use_mpi=False,
    )
    executable(  # noqa: F405
        "export",
        ["{dlbench} export {experiment_run_dir}/results --format jube"],
        use_mpi=False,
        redirect="{experiment_run_dir}/cases.txt",
    )
    workload("suite", executables=["run", "export"])  # noqa: F405
    workload_variable("dlbench", default="dlbench", description="Command of dlbench", workloads=["suite"])  # noqa: F405
    workload_variable("suite", default="quick", description="Name or file of a suite", workloads=["suite"])  # noqa: F405
    workload_variable(  # noqa: F405
        "dlbench_options", default="", description="Further options of `dlbench run`", workloads=["suite"]
    )

    figure_of_merit_context(  # noqa: F405
        "case",
        regex=r"^dlbench: status=\S+ (?P<case>.*\bsystem=\S+)",
        output_format="{case}",
    )
    for _name, _key, _units in (
        ("Status", "status", ""),
        ("Model", "model", ""),
        ("Mode", "mode", ""),
        ("Throughput", "throughput_img_per_s", "img/s"),
        ("Throughput, low", "throughput_img_per_s_low", "img/s"),
        ("Throughput, high", "throughput_img_per_s_high", "img/s"),
    ):
        figure_of_merit(  # noqa: F405
            _name,
            fom_regex=rf"^dlbench: .*\b{_key}=(?P<value>\S+)",
            group_name="value",
            log_file="{experiment_run_dir}/cases.txt",
            units=_units,
            contexts=["case"],
        )

    success_criteria(  # noqa: F405
        "measured", mode="string", match=r"^dlbench: status=(ok|unstable) .*", file="{experiment_run_dir}/cases.txt"
    )
