"""Whatever a profile may legally hold, its job scripts are ones that shellcheck and bash find nothing in."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlbench.errors import BadInput
from dlbench.launch import runtimes, sites, slurm
from dlbench.launch.sites import load_site
from tests.launch.test_slurm import JOB

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
#: What shells, Slurm and shellcheck read as more than text.
TRICKY = ["$(touch x)", "`x`", "'", '"', "\\", "a'b\"c", "$HOME", "${x}", "*", "?", "[a]=1", "{a,b}", "!!", "#x", " ", "~", "~/x",
          "a b", "1+2", "ls", "cat", "-n", "=", "a=b", "‘’“”", "é", "日本", "\u00a0", "&", "|", ";", "<", ">", "%j", "a,b", "",
          "x\\", "\\n", "shellcheck disable=all", "٣"]  # fmt: skip
TEXT = st.one_of(
    st.sampled_from(TRICKY),
    st.lists(st.sampled_from(TRICKY), max_size=4).map("".join),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20),
)
VARIABLES = [
    "PATH",
    "IFS",
    "PS1",
    "HOME",
    "TMPDIR",
    "LD_PRELOAD",
    "PYTHONPATH",
    "OMP_NUM_THREADS",
    "CDPATH",
    "_",
    "a",
    "A",
]


#: Without these most profiles would be refused for what they lack.
NEEDED = ("cpus_per_task", "per_node", "image")


def value_of(field):
    rule = field.metadata
    if "known" in rule:
        return st.sampled_from(rule["known"])
    if field.name == "cpus_per_node":
        return st.integers(4 * 501, 4 * 1000)  # room for every number of ranks and cores per rank
    if "least" in rule:
        return st.integers(rule["least"], rule["least"] + 500)
    if str(field.type) == "bool":
        return st.booleans()
    if field.name == "image":
        return st.from_regex(r"/[A-Za-z0-9_./@+=-]{1,9}", fullmatch=True)
    if field.name == "mounts":
        path = st.from_regex(sites.PLAIN_PATH, fullmatch=True)
        return st.lists(
            st.one_of(path, st.builds("{}:{}".format, path, path), st.builds("{}:{}:ro".format, path, path)), max_size=3
        )
    text = st.from_regex(rule["pattern"], fullmatch=True)
    if field.name == "directives":
        text = text.filter(lambda d: d.partition("=")[0] not in sites.OWN_DIRECTIVES)
    if field.name == "without":
        return st.lists(st.sampled_from(sorted(sites.OWN_DIRECTIVES)), max_size=3)
    if field.name == "time_limit":
        text = st.sampled_from(["5", "04:00:00", "1-12"])
    if field.name in ("python", "host_python"):
        return st.lists(st.one_of(TEXT, text), min_size=1, max_size=3)
    if field.name == "options":
        return st.lists(st.one_of(TEXT.map("-{}".format), text), max_size=3)
    return st.lists(text, max_size=3) if str(field.type).startswith("tuple") else text


def table(cls):
    values = {field.name: value_of(field) for field in dataclasses.fields(cls)}
    needed = {name: values.pop(name) for name in NEEDED if name in values}
    return st.fixed_dictionaries(needed, optional=values)


PROFILES = st.fixed_dictionaries(
    {name: table(cls) for name, cls in sites._TABLES.items() if name != "pbs"}
    | {
        "environment": st.dictionaries(
            st.one_of(st.sampled_from(VARIABLES), st.from_regex(sites._VARIABLE_PATTERN, fullmatch=True)),
            TEXT,
            max_size=4,
        )
    }
    | {"description": TEXT}
)
JOBS = st.builds(
    dataclasses.replace,
    st.just(JOB),
    nodes=st.integers(1, 3),
    ranks_per_node=st.integers(1, 4),
    array=st.integers(1, 5),
    throttle=st.one_of(st.none(), st.integers(1, 4)),
    overrides=st.lists(TEXT.map("model={}".format), max_size=2).map(tuple),
    image_digest=st.one_of(st.none(), st.just("sha256:0123")),
    results=st.sampled_from(["/scratch/anna/results", "/scratch/größe/+@=._-/r"]),
)


def toml(profile):
    def dumps(value):
        return json.dumps(value, ensure_ascii=False)

    lines = [f"description = {dumps(profile['description'])}"]
    for name, values in profile.items():
        if isinstance(values, dict):
            lines += [f"[{name}]", *(f"{key} = {dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


@pytest.fixture
def scripts_of(tmp_path):
    """The scripts of a drawn profile; none where dlbench refuses it, which it does in one line."""
    file, refusals = tmp_path / "site.toml", []

    def scripts_of(profile, job):
        file.write_text(toml(profile))
        try:
            site = load_site(file, {"HOME": "/home/anna"})
            return [slurm.campaign_script(site, job), slurm.report_script(site, job)]
        except BadInput as error:
            refusals.append(str(error))
            return []

    yield scripts_of
    assert [text for text in refusals if len(text.splitlines()) != 1] == []


def test_the_scripts_of_any_profile_pass_shellcheck_and_bash(scripts_of, tmp_path):
    scripts = []

    @settings(max_examples=50, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(profile=PROFILES, job=JOBS)
    def draw(profile, job):
        scripts.extend(scripts_of(profile, job))

    draw()
    assert len(scripts) > 50  # most of what is drawn is legal
    files = [tmp_path / f"{number}.sh" for number in range(len(scripts))]
    for file, script in zip(files, scripts, strict=True):
        file.write_text(script)
        parsed = subprocess.run(["bash", "-n", file], capture_output=True, text=True, check=False)
        assert (parsed.returncode, parsed.stderr) == (0, "")
    checked = subprocess.run([SHELLCHECK, *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
@pytest.mark.parametrize("text", TRICKY, ids=repr)
def test_a_tricky_value_arrives_in_the_environment_as_it_stands(scripts_of, runtime, text):
    image = "/x.img" if runtimes.RUNTIME_RECORDS[runtime].image_file else "dlbench:latest"
    container = {"runtime": runtime, "image": image}
    profile = {
        "description": "",
        "slurm": {"cpus_per_task": 1},
        "environment": {"TRICKY": text},
        "container": container,
    }
    for script in scripts_of(profile, JOB):
        (line,) = [line for line in script.splitlines() if line.startswith("export TRICKY=")]
        shown = subprocess.run(
            ["bash", "-c", f'{line}; printf %s "$TRICKY"'], capture_output=True, text=True, check=True
        )
        assert shown.stdout == text


def test_no_profile_sets_a_variable_of_the_scripts_themselves(load_text):
    site = sites.Site(
        "s", "s.toml", slurm=sites.SlurmSettings(cpus_per_task=1), container=sites.ContainerSettings("docker", "x")
    )
    job = dataclasses.replace(JOB, ranks_per_node=2)
    text = slurm.campaign_script(site, job) + slurm.report_script(site, JOB)
    assigned = set(re.findall(r"^(?:export )?([a-z_]+)=", text, re.MULTILINE)) | {"nodes", "signals", "received"}
    assert {"results", "step", "inside", "status", "token"} < assigned
    for name in assigned:
        with pytest.raises(BadInput, match=f"site.toml:2: {name} is a variable of the job script's shell"):
            load_text(f'[environment]\n{name} = "x"')
    for name in ("IFS", "BASH_ENV", "UID", "SHELLOPTS"):
        with pytest.raises(BadInput, match="of the job script's shell"):
            load_text(f'[environment]\n{name} = "x"')


@pytest.fixture
def load_text(tmp_path):
    def load_text(text):
        (tmp_path / "site.toml").write_text(text)
        return load_site(tmp_path / "site.toml", {"HOME": "/home/anna"})

    return load_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[slurm]\ntime_limit = "٤"', "a Slurm time"),
        ('[slurm]\nmemory = "٦٤G"', "a size such as 64G"),
        ("[slurm]\ncpus_per_task = 99999999999999999999", "at least 1, at most 2147483647"),
        (f"[slurm]\ncpus_per_task = {'9' * 5000}", "is not valid TOML"),
        (f"x = {'[' * 5000}", "nested too deeply|is not valid TOML"),
        (f'name = "{"x" * 300}\\n"', "name is 'xxx.*it must be a name"),
    ],
    ids=["time", "memory", "number", "digits", "nested", "name"],
)
def test_numbers_of_other_scripts_and_huge_or_nested_values_are_one_line(load_text, text, message):
    with pytest.raises(BadInput, match=message) as caught:
        load_text(text)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_site_s_name_of_300_characters_is_one_line():
    with pytest.raises(BadInput, match="site profile name of 300 characters is too long"):
        load_site("x" * 300)
