import argparse
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.__main__ import main
from dlbench.cli import build_parser
from dlbench.commands import COMMANDS

ROOT = Path(__file__).parents[1]


def dlbench(*arguments, cwd=ROOT, **more):
    return subprocess.run(
        [sys.executable, "-m", "dlbench", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom dlbench.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'numpy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"

    def cpu_s():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        dlbench("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(5)) < 0.1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "quick", "--results", ""],
        ["report", "-o", ""],
        ["report", ""],
        ["export", "--format", "parquet", "-o", ""],
        ["query", "select 1", "--results", ""],
    ],
)
def test_a_path_without_a_name_is_not_the_folder_we_are_in(arguments, tmp_path):
    done = dlbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "is empty; use '.' for the current folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "quik"], "unknown suite 'quik'; did you mean 'quick'?"),
        (["plan", "quick", "-P", "model=resnet5"], "unknown model 'resnet5'"),
        (["plan", "quick", "-P", "precision=fp23"], "unknown precision 'fp23'"),
        (["plan", "quick", "-P", "batchsize=2"], "did you mean 'batch_size'?"),
        (["plan", "quick", "-P", "batch_size=0"], "batch_size is 0"),
        (["plan", "nothing.toml"], "suite 'nothing.toml' does not exist"),
        (["run", "quick", "-P", "batch_size=-1"], "batch_size is -1"),
        (["report", "nowhere"], "no results at 'nowhere'"),
        (["layers", "resnet5"], "did you mean 'resnet50'?"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_status_2(arguments, message, tmp_path):
    done = dlbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_malformed_toml_names_file_and_line(tmp_path):
    (tmp_path / "s.toml").write_text("[axes]\nmodel = [\n]]\n")
    done = dlbench("plan", tmp_path / "s.toml")
    assert done.returncode == 2
    assert "s.toml is not valid TOML" in done.stderr
    assert "line 3" in done.stderr


def test_plan_lists_each_case_with_flop_and_memory():
    done = dlbench("plan", "quick")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert sum("vgg16" in line for line in lines) == 2
    assert any("vgg16" in line and "185 GFLOP" in line for line in lines)


def test_plan_needs_no_install(tmp_path):
    (tmp_path / "dlbench").symlink_to(ROOT / "dlbench")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
         "from dlbench.__main__ import main; sys.exit(main(['plan', 'quick']))"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "resnet50" in done.stdout


def test_an_unwritable_results_folder_is_found_before_anything_runs(tmp_path):
    (tmp_path / "f").write_text("")
    done = dlbench("run", "quick", "--results", tmp_path / "f" / "results")
    assert done.returncode == 2
    assert "cannot write results to" in done.stderr


def test_output_into_a_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "dlbench", "plan", "classic"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert done.stderr == b""


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_help_has_a_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: dlbench {name} [-h]")
    assert "--quiet" in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_that_parses_and_short_help(name):
    found = next(a for a in build_parser([name])._actions if isinstance(a, argparse._SubParsersAction))
    parser = found.choices[name]
    example = shlex.split(parser.epilog.splitlines()[-1])
    assert example[:2] == ["dlbench", name]
    assert build_parser([name]).parse_args(example[1:]).command
    for action in parser._actions:
        assert 1 <= len((action.help or "").split()) <= 20, action.dest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["-q", "reprot"], "unknown command 'reprot'; did you mean 'report'?"),
        (["run"], "the following arguments are required: suite; see `dlbench run --help`"),
        (["run", "quick", "--reslts", "x"], "unknown option '--reslts'; did you mean '--results'?"),
        (["plan", "quick", "-P", "modle="], "unknown axis 'modle' in -P modle=; did you mean 'model'?"),
        (["plan", "quick", "--format", "xml"], "invalid choice: 'xml'"),
        (["plan", "quick", "-q", "-v"], "not allowed with argument -q"),
    ],
)
def test_a_misspelt_word_gets_one_line_and_the_nearest_name(arguments, message):
    done = dlbench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_quiet_keeps_errors_and_verbose_adds_the_commands_that_are_started(tmp_path):
    (tmp_path / "tiny.toml").write_text(
        '[axes]\nmodel = ["lenet5"]\nmode = ["inference"]\nbatch_size = [1]\n'
        "[protocol]\nprocesses = 1\nmin_time_s = 0.1\nmax_time_s = 0.2\n"
    )
    talk = {
        flag: dlbench("run", "tiny.toml", "--results", f"r{flag}", flag, "-P", "device=cpu", cwd=tmp_path).stderr
        for flag in ("-q", "-v")
    }
    assert "starting " in talk["-v"]
    assert "dlbench.worker" in talk["-v"]
    assert talk["-q"] == ""
    assert dlbench("-q", "plan", "quik").stderr.startswith("dlbench: unknown suite")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("dlbench la", {"layers"}), ("dlbench plan qui", {"quick", "quick_gpu"}), ("dlbench run --fr", {"--fresh"})],
)
def test_the_shell_completes_commands_options_and_suites(line, expected, tmp_path):
    pytest.importorskip("argcomplete", reason="comes with dlbench")
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "63"}
    files = {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n"}
    code = "import sys; from dlbench.__main__ import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code], env=os.environ | asked | files, cwd=ROOT, check=True)
    assert {word.strip() for word in answer.read_text().split("\n")} == expected
