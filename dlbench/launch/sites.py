"""Site profiles: job settings of one cluster. TOML files in slurm/, read into frozen dataclasses.

    scheduler      "slurm" (default) or "pbs"
    [slurm]        partition, account, qos, constraint, time_limit, cpus_per_node, ... -> #SBATCH lines
    [pbs]          queue, account, time_limit, cpus_per_node, ...   -> #PBS lines
    [gpus]         request = "gres" | "gpus-per-node" | "none", type, per_node, set_power_limit, lock_clock, ...
    [software]     modules, python, host_python
    [environment]  variables, set literally: `$HOME` in a value is not expanded
    [network]      interface, master_address
    [container]    runtime, image, source, mounts, options
    [report]       partition, time_limit, memory, ... of the report job

Every value is validated here and quoted again where it is used, so that a profile cannot inject shell code. Standard
library only: a bare login node reads profiles.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dlbench import bundled_files
from dlbench.errors import BadInput, UnknownName
from dlbench.launch.containers import OVERRIDE_VARIABLES, Mount
from dlbench.launch.runtimes import RUNTIME_RECORDS, RUNTIMES
from dlbench.toml_file import TomlFile, read_toml, require_type

SCHEDULERS = ("slurm", "pbs")
GPU_REQUESTS = ("none", "gres", "gpus-per-node")
#: Variables that identify a rank; a common value would make each rank rank 0.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

#: Paths that all tools accept: Slurm's directives, `-v S:D`, `--container-mounts=S:D,S:D`.
PLAIN_PATH = re.compile(r"/[\w.+@=/-]*")
_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.,+@:-]*"
_DIRECTIVE_PATTERN = re.compile(r"(--[a-z][a-z0-9-]*)(=[A-Za-z0-9_.,:/@%+*&|()\[\]=-]+)?")
_VARIABLE_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# ASCII digits only: `\d` also matches digits of other scripts.
_TIME_PATTERN = r"[0-9]+|[0-9]+:[0-5]?[0-9](:[0-5]?[0-9])?|[0-9]+-[0-9]+(:[0-5]?[0-9]){0,2}"
_SIZE_PATTERN = r"[0-9]+[KMGT]?"
_ONE_LINE_PATTERN = r"[^\x00-\x1f\x7f\u0085\u2028\u2029]+"
#: Variables with a meaning to bash: they would stop the script or change how it is read.
_SHELL_VARIABLES = re.compile(r"IFS|PS[0-9]|UID|EUID|PPID|SHELLOPTS|BASHOPTS|GLOBIGNORE|POSIXLY_CORRECT|_|BASH_?[A-Z]*")
#: Variables of the job scripts themselves.
SCRIPT_VARIABLES = ("results", "suite", "nodes", "port", "step", "inside", "each_node", "token", "child", "received",
                    "signals", "seen", "status", "digest", "tries")  # fmt: skip
#: No count in a profile is larger [1].
_MAX_INT = 2**31 - 1
#: Directives that dlbench writes itself, and the setting behind each.
OWN_DIRECTIVES = {
    **{f"--{name}": f"slurm.{name}" for name in ("partition", "account", "qos", "constraint", "exclusive", "requeue")},
    "--no-requeue": "slurm.requeue",
    "--time": "slurm.time_limit",
    "--mem": "slurm.memory",
    "--signal": "slurm.warn_before_s",
    "--cpus-per-task": "slurm.cpus_per_task or slurm.cpus_per_node",
    **dict.fromkeys(("--gres", "--gpus-per-node"), "gpus.request"),
    **dict.fromkeys(("--nodes", "--ntasks-per-node"), "the suite's cases"),
    "--job-name": "the suite's name",
    "--array": "`dlbench submit --array`",
    **dict.fromkeys(("--open-mode", "--output", "--dependency", "--wrap"), "dlbench"),
}
#: The same for the report job, which requests no GPU and no whole node by default.
REPORT_DIRECTIVES = {
    name: {"--time": "report.time_limit", "--mem": "report.memory", "--partition": "report.partition",
           "--qos": "report.qos", "--nodes": "dlbench", "--ntasks-per-node": "dlbench"}.get(name, by)
    for name, by in OWN_DIRECTIVES.items()
    if name not in ("--gres", "--gpus-per-node", "--exclusive", "--constraint", "--cpus-per-task", "--signal")
}  # fmt: skip


#: Options of srun that dlbench writes itself.
OWN_SRUN_OPTIONS = ("--kill-on-bad-exit", "--wait", "--mpi", "--nodes", "--ntasks", "--ntasks-per-node", "--overlap",
                    "--export", "--job-name", "--nodelist")  # fmt: skip


def _text_field(pattern: str, wanted: str, default: str | tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"pattern": re.compile(pattern), "wanted": wanted})


def _list_field(pattern: str, wanted: str, default: tuple[str, ...] = ()) -> Any:
    return _text_field(pattern, wanted, default)


def _number_field(least: int, default: int | None = None) -> Any:
    return field(default=default, metadata={"least": least})


def _choice_field(known: tuple[str, ...], default: str) -> Any:
    return field(default=default, metadata={"known": known})


_NAME_DESCRIPTION = "a name of letters, digits and _ . , + @ : -"


@dataclass(frozen=True)
class SlurmSettings:
    """Settings of the #SBATCH lines of a job script."""

    partition: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    account: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    qos: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    constraint: str | None = _text_field(r"[A-Za-z0-9_.,:*&|()\[\]!@+-]+", "a Slurm constraint, such as a100|h100")
    time_limit: str | None = _text_field(_TIME_PATTERN, "a Slurm time, such as 04:00:00 or 1-12")
    memory: str | None = _text_field(_SIZE_PATTERN, "a size such as 64G (0: all memory of the node)")
    max_nodes: int | None = _number_field(1)
    cpus_per_task: int | None = _number_field(1)
    #: Cores of a node: the ranks share them, unless `cpus_per_task` is set.
    cpus_per_node: int | None = _number_field(1)
    exclusive: bool = True
    requeue: bool = True
    max_requeues: int = _number_field(0, 20)
    warn_before_s: int = _number_field(10, 180)  # signals arrive up to 80 s early, and a case needs time to end
    mpi: str | None = _text_field(r"[a-z0-9_]+", "a type that `srun --mpi=list` prints")
    directives: tuple[str, ...] = _list_field(_DIRECTIVE_PATTERN.pattern, "a directive such as --mail-type=END")
    #: Options of every srun that starts ranks.
    srun: tuple[str, ...] = _list_field(_DIRECTIVE_PATTERN.pattern, "an option of srun such as --cpu-bind=cores")
    without: tuple[str, ...] = _list_field(r"--[a-z][a-z0-9-]*", "the name of an sbatch option, such as --mem")


@dataclass(frozen=True)
class PbsSettings:
    """Settings of the #PBS lines of a job script."""

    queue: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    account: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    time_limit: str | None = _text_field(r"[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]", "hours:minutes:seconds, such as 04:00:00")
    memory: str | None = _text_field(_SIZE_PATTERN, "a size per node such as 64G")
    max_nodes: int | None = _number_field(1)
    cpus_per_node: int | None = _number_field(1)
    exclusive: bool = True
    warn_before_s: int = _number_field(10, 180)
    #: Further resources of each node, such as model=icelake.
    resources: tuple[str, ...] = _list_field(
        r"[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_.@-]+", "a resource such as model=icelake"
    )
    directives: tuple[str, ...] = _list_field(
        r"-[A-Za-z]( [A-Za-z0-9_.,:/@%+=-]+)?", 'an option of qsub such as "-m ae"'
    )


#: Options of qsub that dlbench writes itself.
OWN_PBS_OPTIONS = ("-N", "-q", "-A", "-j", "-o", "-J", "-r", "-W")


@dataclass(frozen=True)
class GpuSettings:
    """GPU request of the site."""

    request: str = _choice_field(GPU_REQUESTS, "none")
    type: str | None = _text_field(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a GPU type, such as a100")
    per_node: int = _number_field(0, 0)
    #: Commands for cases with `power_cap_w` or `clock_mhz`, where NVML may not set them; see docs/power.md.
    set_power_limit: str | None = _text_field(_ONE_LINE_PATTERN, "a one-line command that contains {uuid} and {watts}")
    lock_clock: str | None = _text_field(_ONE_LINE_PATTERN, "a one-line command that contains {uuid} and {mhz}")
    unlock_clock: str | None = _text_field(_ONE_LINE_PATTERN, "a one-line command that contains {uuid}")


@dataclass(frozen=True)
class SoftwareSettings:
    """Modules to load, and the Python that measures."""

    modules: tuple[str, ...] = _list_field(r"[A-Za-z0-9][A-Za-z0-9_.+/@=-]*", "a module name, such as cuda/12.4")
    python: tuple[str, ...] = _list_field(_ONE_LINE_PATTERN, "a one-line command", ("python3",))
    #: Python outside the container (`python` is the one inside); >= 3.11, no packages needed.
    host_python: tuple[str, ...] = _list_field(_ONE_LINE_PATTERN, "a one-line command", ("python3",))


@dataclass(frozen=True)
class InterconnectSettings:
    """Network settings for ranks on several nodes."""

    interface: str | None = _text_field(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", "a network interface, such as ib0")
    master_address: str | None = _text_field(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", "an address or host name")


@dataclass(frozen=True)
class ContainerSettings:
    """Container image and runtime."""

    runtime: str = _choice_field(RUNTIMES, "none")
    image: str | None = _text_field(r"[\w.+@=/:#~${}-]+", "an image's absolute path or its reference")
    #: Source of the image for `dlbench image import`.
    source: str | None = _text_field(
        r"[A-Za-z0-9][\w.+@=/:#-]*", "a reference such as docker://nvcr.io#nvidia/pytorch:TAG"
    )
    mounts: tuple[Mount, ...] = ()
    options: tuple[str, ...] = _list_field(rf"-{_ONE_LINE_PATTERN}", "an option of the runtime, such as --ipc=host")


@dataclass(frozen=True)
class ReportJobSettings:
    """Settings of the report job, which needs no GPU and few cores."""

    partition: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    time_limit: str | None = _text_field(_TIME_PATTERN, "a Slurm time, such as 00:30:00", "00:30:00")
    #: Slurm's default memory per core is often too small for a report.
    memory: str | None = _text_field(_SIZE_PATTERN, "a size such as 4G", "4G")
    #: Default: the value of `SlurmSettings`, if the report runs in the same partition.
    qos: str | None = _text_field(_NAME_PATTERN, _NAME_DESCRIPTION)
    #: Not inherited from `SlurmSettings`: reservations or profiler features do not apply to the report.
    directives: tuple[str, ...] = _list_field(_DIRECTIVE_PATTERN.pattern, "a directive such as --mail-type=END")


@dataclass(frozen=True)
class Site:
    """Profile of one cluster."""

    name: str
    file: str
    description: str = ""
    scheduler: str = "slurm"
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    gpus: GpuSettings = field(default_factory=GpuSettings)
    software: SoftwareSettings = field(default_factory=SoftwareSettings)
    environment: Mapping[str, str] = field(default_factory=dict)
    network: InterconnectSettings = field(default_factory=InterconnectSettings)
    container: ContainerSettings = field(default_factory=ContainerSettings)
    report: ReportJobSettings = field(default_factory=ReportJobSettings)
    pbs: PbsSettings = field(default_factory=PbsSettings)

    @property
    def partition(self) -> str | None:
        """Slurm's partition or PBS's queue."""
        return self.pbs.queue if self.scheduler == "pbs" else self.slurm.partition

    @property
    def has_gpus(self) -> bool:
        """Whether the nodes have GPUs, requested explicitly or not."""
        return self.gpus.request != "none" or self.gpus.per_node > 0

    @property
    def python_outside_container(self) -> tuple[str, ...]:
        """Python of the host, which supervises if the measuring Python is inside a container."""
        return self.software.python if self.container.runtime == "none" else self.software.host_python


_TABLES: dict[str, type] = {
    "slurm": SlurmSettings,
    "pbs": PbsSettings,
    "gpus": GpuSettings,
    "software": SoftwareSettings,
    "network": InterconnectSettings,
    "container": ContainerSettings,
    "report": ReportJobSettings,
}
_TOP_LEVEL_KEYS = ("name", "description", "scheduler", "environment", *_TABLES)


def load_site(path: str | Path, environment: Mapping[str, str] | None = None) -> Site:
    """Read the profile of a site.

    Args:
        path: a TOML file, or the name of one as `dlbench.bundled_files` finds it.
        environment: values of `${NAME}` and `~` in paths of images, mounts and Pythons (default: that of this process).

    Raises:
        BadInput: the file is missing or not TOML, or a value is invalid; the message contains file and line.
        UnknownName: an unknown key.
    """
    file = read_toml(bundled_files.find_file("site profile", path), "a site profile")
    return _SiteReader(file, os.environ if environment is None else environment).read_site()


def settings_without_effect(site: Site) -> list[str]:
    """List the settings of a profile that have no effect."""
    found = []
    other = {"slurm": site.pbs != PbsSettings(), "pbs": site.slurm != SlurmSettings()}
    if other[site.scheduler]:
        table = "pbs" if site.scheduler == "slurm" else "slurm"
        found.append(f'{site.file}: [{table}] has no effect; add scheduler = "{table}" to use it')
    if site.container.runtime == "none" and site.software.host_python != SoftwareSettings.host_python:
        found.append(
            f"{site.file}: software.host_python has no effect without a container; dlbench uses software.python"
        )
    if site.container.runtime == "pyxis" and "ENROOT_DATA_PATH" in site.environment:
        found.append(
            f"{site.file}: environment.ENROOT_DATA_PATH has no effect with pyxis, which reads only "
            f"/etc/enroot/enroot.conf; ask the administrators to set it in that file"
        )
    return found


class _SiteReader:
    """Reader of one file: converts tables to dataclasses, and adds file and line to messages."""

    def __init__(self, file: TomlFile, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment

    def read_site(self) -> Site:
        file = self._file
        file.require_known(file.values, _TOP_LEVEL_KEYS)
        tables = {name: self._read_table(name, cls, file.table(name)) for name, cls in _TABLES.items()}
        given = file.values.get("name", file.path.stem)
        name = self._read_text("", "name", given, re.compile(_NAME_PATTERN), _NAME_DESCRIPTION)
        anything = re.compile(rf"({_ONE_LINE_PATTERN})?")
        description = self._read_text("", "description", file.get("description", str, ""), anything, "one line of text")
        scheduler = file.values.get("scheduler", SCHEDULERS[0])
        if scheduler not in SCHEDULERS:
            raise UnknownName("scheduler", scheduler, SCHEDULERS, file.file_and_line("scheduler"))
        tables["container"] = self._check_container(tables["container"])
        variables = self._read_variables(file.table("environment"))
        site = Site(name, str(file.path), description, scheduler, environment=variables, **tables)
        self._check_directives(site)
        return site

    def _read_table(self, table: str, cls: type, values: dict[str, Any]) -> Any:
        known = {f.name: f for f in fields(cls)}
        self._file.require_known(values, known, table)
        return cls(**{key: self._read_value(table, known[key], value) for key, value in values.items()})

    def _read_value(self, table: str, setting: dataclasses.Field[Any], value: Any) -> Any:
        key, kind, rule = setting.name, str(setting.type), setting.metadata
        if key == "mounts":
            return tuple(self._read_mount(item) for item in self._read_list(table, key, value))
        if "known" in rule:
            if value not in rule["known"]:
                raise UnknownName(key, value, rule["known"], self._file.file_and_line(key, table))
            return value
        if "least" in rule:
            if isinstance(value, bool) or not isinstance(value, int) or not rule["least"] <= value <= _MAX_INT:
                most = f", at most {_MAX_INT}" if str(value).isdecimal() else ""
                self._file.raise_invalid(value, key, f"a whole number, at least {rule['least']}{most}", table)
            return value
        if kind == "bool":
            return require_type(value, bool, f"{table}.{key}", self._file.file_and_line(key, table))
        if kind.startswith("tuple"):
            items = [value] if isinstance(value, str) and key.endswith("python") else self._read_list(table, key, value)
            texts = [self._read_text(table, key, item, rule["pattern"], rule["wanted"]) for item in items]
            if key.endswith("python"):
                if not texts:
                    self._file.raise_invalid(value, key, "a command, such as python3", table)
                texts[0] = self._expand_variables(self._file.file_and_line(key, table), texts[0])
            return tuple(texts)
        return self._read_text(table, key, value, rule["pattern"], rule["wanted"])

    def _read_list(self, table: str, key: str, value: Any) -> list[Any]:
        return list(
            require_type(value, list, f"{table}.{key}", self._file.file_and_line(key, table), 'a list, such as ["..."]')
        )

    def _read_text(self, table: str, key: str, value: Any, pattern: re.Pattern[str], wanted: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._file.raise_invalid(value, key, wanted, table)
        return str(value)

    def _read_variables(self, values: dict[str, Any]) -> dict[str, str]:
        for name, value in values.items():
            if not _VARIABLE_PATTERN.fullmatch(name):
                self._file.raise_invalid(name, name, "the name of an environment variable", "environment")
            where = self._file.file_and_line(name, "environment")
            if name not in OVERRIDE_VARIABLES and (name in RANK_VARIABLES or name.startswith(("SLURM_", "DLBENCH_"))):
                raise BadInput(f"{where}: {name} is set by the launcher for each rank; remove it from the profile")
            if name in SCRIPT_VARIABLES or _SHELL_VARIABLES.fullmatch(name):
                raise BadInput(f"{where}: {name} is a variable of the job script's shell; remove it from the profile")
            self._read_text("environment", name, value, re.compile(rf"({_ONE_LINE_PATTERN})?"), "one line of text")
        return dict(values)

    def _read_mount(self, item: Any) -> Mount:
        parts = item.split(":") if isinstance(item, str) else []
        read_only = len(parts) == 3 and parts[2] == "ro"
        if not 1 <= len(parts) <= 3 or (len(parts) == 3 and not read_only):
            self._file.raise_invalid(item, "mounts", "SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro", "container")
        source = self._read_path("mounts", parts[0])
        return Mount(source, self._read_path("mounts", parts[1]) if len(parts) > 1 else source, read_only)

    def _read_path(self, key: str, text: str) -> str:
        where = self._file.file_and_line(key, "container")
        path = self._expand_variables(where, text)
        if not PLAIN_PATH.fullmatch(path):
            raise BadInput(f"{where}: '{path}' must be an absolute path of letters, digits and . _ + @ = / -")
        return path

    def _expand_variables(self, where: str, text: str) -> str:
        """Replace `~` and `${NAME}` in the text; done in Python, not by a shell."""

        def variable_value(match: re.Match[str]) -> str:
            name = match.group(1) or "HOME"
            if name not in self._environment:
                raise BadInput(f"{where}: '{text}' uses ${{{name}}}, which is not set here; export it first")
            return self._environment[name]

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|^~(?=/|$)", variable_value, text)

    def _check_directives(self, site: Site) -> None:
        of_slurm = (site.slurm.directives, OWN_DIRECTIVES)
        of_report = (site.report.directives, REPORT_DIRECTIVES)
        for table, (directives, own) in {"slurm": of_slurm, "report": of_report}.items():
            for name in (directive.partition("=")[0] for directive in directives):
                if name in own:
                    where = self._file.file_and_line("directives", table)
                    raise BadInput(f"{where}: set {name} by {own[name]}, not under directives")
        for name in (option.partition("=")[0] for option in site.slurm.srun):
            if name in OWN_SRUN_OPTIONS:
                raise BadInput(
                    f"{self._file.file_and_line('srun', 'slurm')}: do not set {name} in slurm.srun: dlbench sets it"
                )
        for name in (option.partition(" ")[0] for option in site.pbs.directives):
            if name in OWN_PBS_OPTIONS:
                raise BadInput(f"{self._file.file_and_line('directives', 'pbs')}: do not set {name}: dlbench sets it")
        if site.scheduler == "pbs" and site.report.time_limit and site.report.time_limit.count(":") != 2:
            self._file.raise_invalid(site.report.time_limit, "time_limit", "hours:minutes:seconds with PBS", "report")
        for name in site.slurm.without:
            if name not in OWN_DIRECTIVES:
                raise UnknownName("directive", name, OWN_DIRECTIVES, self._file.file_and_line("without", "slurm"))
        if site.gpus.request != "none" and site.gpus.per_node < 1:
            where = self._file.file_and_line("request", "gpus")
            raise BadInput(f"{where}: gpus.per_node is missing; set it to the number of GPUs per node")

    def _check_container(self, container: ContainerSettings) -> ContainerSettings:
        if container.runtime == "none":
            return container
        where = self._file.file_and_line("image" if container.image else "runtime", "container")
        if not container.image:
            raise BadInput(f"{where}: runtime {container.runtime} needs container.image; set it")
        if RUNTIME_RECORDS[container.runtime].image_file:
            return dataclasses.replace(container, image=self._read_path("image", container.image))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:@-]*", container.image):
            raise BadInput(f"{where}: '{container.image}' must be an image reference such as dlbench:latest")
        return container
