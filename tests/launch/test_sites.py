from pathlib import Path

import pytest

from dlbench.errors import BadInput, UnknownName
from dlbench.launch.containers import Mount
from dlbench.launch.sites import load_site

SLURM = Path(__file__).parents[2] / "slurm"
PLACE = {"HOME": "/home/anna", "SCRATCH": "/scratch/anna"}


@pytest.fixture
def load(tmp_path):
    def load(text, environment=PLACE):
        file = tmp_path / "site.toml"
        file.write_text(text)
        return load_site(file, environment)

    return load


@pytest.mark.parametrize("file", sorted(SLURM.glob("*.toml")), ids=lambda file: file.stem)
def test_every_example_can_be_used_as_it_stands(file):
    site = load_site(file, PLACE)
    assert site.name == file.stem
    assert site.pbs.cpus_per_node or site.slurm.cpus_per_node or site.slurm.cpus_per_task
    assert site.description


def test_there_is_an_example_for_each_kind_of_site():
    assert {"cpu", "nvidia-pyxis", "nvidia-enroot", "nvidia-apptainer", "pbs"} <= {
        file.stem for file in SLURM.glob("*.toml")
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[slurm]\n\npartion = "gpu"',
            r"unknown key in \[slurm\] 'partion' in .*site.toml:3; did you mean 'partition'",
        ),
        ("[slrum]\n", "unknown key 'slrum' in .*site.toml:1; did you mean 'slurm'"),
        ('[container]\nruntime = "enrot"', "unknown runtime 'enrot' in .*:2; did you mean 'enroot'"),
        ('[gpus]\nrequest = "gpu-per-node"\nper_node = 1', "did you mean 'gpus-per-node'"),
        ('[slurm]\nwithout = ["--memory"]', "unknown directive '--memory' in .*:2"),
    ],
)
def test_an_unknown_name_is_an_error_with_its_line_and_a_near_one(load, text, message):
    with pytest.raises(UnknownName, match=message):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[slurm]\ncpus_per_task = 0", "site.toml:2: slurm.cpus_per_task is 0; it must be a whole number, at least 1"),
        ('[slurm]\ncpus_per_task = "16"', "slurm.cpus_per_task is '16'"),
        ("[slurm]\nexclusive = 1", "slurm.exclusive is 1; it must be true or false"),
        ('[slurm]\ntime_limit = "4 hours"', "a Slurm time, such as 04:00:00"),
        ('[slurm]\ndirectives = "--x"', "a list"),
        ('[slurm]\ndirectives = ["--time=5"]', "set --time by slurm.time_limit, not under directives"),
        ('[environment]\nRANK = "0"', "site.toml:2: RANK is set by the launcher for each rank"),
        ('[environment]\n"A B" = "0"', "the name of an environment variable"),
        ('[environment]\nA = 1', "environment.A is 1; it must be one line of text"),
        ('[container]\nruntime = "docker"', "runtime docker needs container.image"),
        ('[container]\nruntime = "enroot"\nimage = "images/x.sqsh"', "'images/x.sqsh' must be an absolute path"),
        ('[container]\nruntime = "enroot"\nimage = "${WORK}/x.sqsh"', "uses \\${WORK}, which is not set here"),
        ('[container]\nmounts = ["/a:/b:rw"]', "SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro"),
        ('[container]\nmounts = ["/a b"]', "'/a b' must be an absolute path"),
        ('[gpus]\nrequest = "gres"', "gpus.per_node is missing"),
        ('[software]\npython = []', "a command, such as python3"),
        ("slurm = 3", "slurm is 3; it must be a table"),
        ("[slurm", "is not valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_an_error_that_says_what_it_must_be(load, text, message):
    with pytest.raises(BadInput, match=message):
        load(text)


POISONS = [
    "a\nb",
    "a;b",
    "$(touch x)",
    "`touch x`",
    "a'b",
    'a"b',
    "a b",
    "a\\b",
    "#b",
    "a>b",
    "$HOME",
    "a\x00b",
    "a\u2028b",
]
PLACES = [
    ("slurm", "partition"), ("slurm", "account"), ("slurm", "qos"), ("slurm", "constraint"), ("slurm", "time_limit"),
    ("slurm", "memory"), ("slurm", "mpi"), ("gpus", "type"), ("network", "interface"), ("network", "master_address"),
    ("container", "image"), ("container", "source"), ("report", "partition"), ("report", "time_limit"),
    ("report", "qos"), ("report", "directives"),
    ("slurm", "directives"), ("slurm", "without"), ("pbs", "queue"), ("pbs", "account"), ("pbs", "time_limit"),
    ("pbs", "memory"), ("pbs", "resources"), ("pbs", "directives"), ("software", "modules"), ("container", "mounts"),
]  # fmt: skip


@pytest.mark.parametrize("poison", POISONS, ids=repr)
@pytest.mark.parametrize(("table", "key"), PLACES)
def test_nothing_that_a_shell_or_slurm_could_read_as_more_than_a_value_gets_in(load, table, key, poison):
    text = '"' + "".join(f"\\u{ord(c):04x}" for c in poison) + '"'
    directive = '"--x=' + text[1:] if key == "directives" else text
    value = f"[{directive}]" if key in ("directives", "resources", "without", "modules", "mounts") else text
    extra = 'runtime = "docker"\n' if key == "image" else ""
    with pytest.raises(BadInput):
        load(f"[{table}]\n{extra}{key} = {value}")


@pytest.mark.parametrize("key", ["python", "host_python"])
def test_a_command_is_one_line(load, key):
    with pytest.raises(BadInput, match="a one-line command"):
        load(f'[software]\n{key} = "python3\\nrm"')


def test_home_and_variables_in_paths_are_replaced_without_a_shell(load):
    site = load(
        '[software]\npython = ["~/venv/bin/python", "-u"]\n'
        '[container]\nruntime = "pyxis"\nimage = "${SCRATCH}/x.sqsh"\nmounts = ["~", "${SCRATCH}/in:/in:ro"]'
    )
    assert site.software.python == ("/home/anna/venv/bin/python", "-u")
    assert site.container.image == "/scratch/anna/x.sqsh"
    assert site.container.mounts == (
        Mount("/home/anna", "/home/anna"),
        Mount("/scratch/anna/in", "/in", read_only=True),
    )


def test_a_value_of_a_variable_that_is_no_plain_path_is_refused_too(load):
    with pytest.raises(BadInput, match="must be an absolute path"):
        load('[container]\nmounts = ["${SCRATCH}"]', {"SCRATCH": "/scratch/$(touch x)"})


def test_values_of_the_environment_stand_as_they_are(load):
    assert load("[environment]\nA = '$HOME; `x`'").environment == {"A": "$HOME; `x`"}


def test_how_the_ranks_meet_may_be_set_in_the_environment(load):
    given = {"DLBENCH_MASTER_PORTS": "29500,29510-29520", "DLBENCH_INTERFACE": "ib0", "DLBENCH_RENDEZVOUS_S": "90"}
    lines = "".join(f'{name} = "{value}"\n' for name, value in given.items())
    assert load(f"[environment]\n{lines}").environment == given
    with pytest.raises(BadInput, match="DLBENCH_TOKEN is set by the launcher"):
        load('[environment]\nDLBENCH_TOKEN = "x"')


def test_a_site_can_be_named_without_its_folder():
    assert load_site("cpu", PLACE).name == "cpu"
    with pytest.raises(UnknownName, match=r"unknown site profile 'cpuu'; did you mean 'cpu'\?"):
        load_site("cpuu")
    with pytest.raises(BadInput, match=r"site profile 'x\.toml' does not exist"):
        load_site("x.toml")
