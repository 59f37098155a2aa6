from pathlib import Path

import pytest

from dlbench.errors import BadInput, UnknownName
from dlbench.suites.case import AXES, Case, Protocol, describe_axis, describe_axis_value
from dlbench.suites.case_estimates import predicted_memory_bytes, step_flop
from dlbench.suites.suite import load_suite

SUITES = Path(__file__).parents[2] / "benchmarks"


def write(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_axes_multiply_and_the_last_varies_fastest(tmp_path):
    suite = load_suite(write(tmp_path, "[axes]\nmodel=['lenet5','vgg16']\nbatch_size=[1,2]\n"))
    assert [(c.model, c.batch_size) for c in suite.cases()] == [
        ("lenet5", 1),
        ("lenet5", 2),
        ("vgg16", 1),
        ("vgg16", 2),
    ]


def test_an_exclusion_takes_out_what_matches_all_its_keys(tmp_path):
    text = "[axes]\nmodel=['lenet5','vgg16']\nbatch_size=[1,2]\n[[exclude]]\nmodel='vgg16'\nbatch_size=[2]\n"
    assert len(load_suite(write(tmp_path, text)).cases()) == 3


def test_an_exclusion_by_an_axis_that_the_suite_leaves_at_its_default(tmp_path):
    text = "[axes]\nmodel=['lenet5','vgg16']\n[[exclude]]\nmodel='vgg16'\nmode='training'\n"
    assert [c.model for c in load_suite(write(tmp_path, text)).cases()] == ["lenet5"]


def test_excluding_everything_is_an_error_that_says_so(tmp_path):
    path = write(tmp_path, "[axes]\nmodel=['lenet5']\n[[exclude]]\nmodel='lenet5'\n")
    with pytest.raises(BadInput, match="every combination is excluded"):
        load_suite(path).cases()


def test_inference_cases_do_not_multiply_over_optimizers(tmp_path):
    text = "[axes]\nmodel=['lenet5']\nmode=['training','inference']\noptimizer=['sgd','adam']\n"
    cases = load_suite(write(tmp_path, text)).cases()
    assert [(c.mode, c.optimizer) for c in cases] == [("training", "sgd"), ("training", "adam"), ("inference", "sgd")]


def test_auto_becomes_the_device_of_the_machine_and_a_named_device_stays(tmp_path):
    text = "[axes]\nmodel=['lenet5']\ndevice=['auto','cpu']\n"
    assert [c.device for c in load_suite(write(tmp_path, text)).cases(device="cuda")] == ["cuda", "cpu"]


def test_overrides_replace_axes_and_protocol_keys(tmp_path):
    path = write(tmp_path, "[axes]\nmodel=['lenet5']\n")
    suite = load_suite(path, ["model=vgg16, resnet50", "batch_size=8,16", "protocol.min_time_s=0.5"])
    assert len(suite.cases()) == 4
    assert suite.protocol.min_time_s == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[axes]\nmodell=['lenet5']\n", "unknown axis 'modell' in .*s.toml:2; did you mean 'model'"),
        ("axis = 3\n[axes]\nmodel=['lenet5']\n", "unknown key 'axis' in .*s.toml:1; did you mean 'axes'"),
        ("[axes]\nmodel=['lenet5']\nprecision=['fp23']\n", "unknown precision 'fp23'; did you mean 'fp32'.*s.toml"),
        ("[axes]\nmodel=['lenet5']\nbatch_size=[0]\n", "batch_size is 0; it must be at least 1"),
        ("[axes]\nmodel=['lenet5']\nbatch_size=['4']\n", "batch_size is '4'; it must be a whole number"),
        ("[axes]\nmodel=['lenet5']\nbatch_size=[true]\n", "batch_size is True; it must be a whole number"),
        ("[axes]\nmodel=[]\n", "axis 'model' in .* has no values"),
        ("[axes]\nmode=['training']\n", "contains no model"),
        ("[axes]\nmodel=['lenet5'\n", "not valid TOML: .*line"),
        (
            "[axes]\nmodel=['lenet5']\n[protocol]\nmin_tme_s=1\n",
            "unknown protocol key 'min_tme_s'.*did you mean 'min_time_s'",
        ),
        ("[axes]\nmodel=['lenet5']\n[protocol]\nmin_time_s='long'\n", "min_time_s is 'long'; it must be a number"),
        ("[axes]\nmodel=['lenet5']\n[protocol]\nmin_time_s=nan\n", "min_time_s is nan; it must be a number"),
        ("[axes]\nmodel=['lenet5']\n[protocol]\nconfidence=1.0\n", "protocol.confidence is 1.0"),
        ("[axes]\nmodel=['lenet5']\n[protocol]\nmin_time_s=70\n", "min_time_s is 70.0; it must be at most max_time_s"),
        ("[axes]\nmodel=['lenet5']\n[[exclude]]\n", "exclude 1 of .* is empty"),
        ("[axes]\nmodel=['lenet5']\nbucket_cap_mb=[nan]\n", "bucket_cap_mb is nan; it must be a whole number"),
        ("[axes]\nmodel=['lenet5']\nmode=['inference']\noptimizer=['sdg']\n", "unknown optimizer 'sdg'"),
        (
            f"[axes]\nmodel=['lenet5']\nbatch_size={list(range(1, 3001))}\nrepeat={list(range(3000))}\n",
            "the axes have 9000000 combinations; a suite may have at most 100000",
        ),
        ("axes = 3\n", r"s.toml:1: axes is 3; it must be a table \(\[axes\]\)"),
        ("exclude = [3]\n[axes]\nmodel=['lenet5']\n", "exclude 1 is 3; it must be a table"),
        (
            "[axes]\nmodel=['lenet5']\n[[exclude]]\nbatch_size='2'\n",
            "exclude 1 of .*: batch_size is '2'; it must be a whole number",
        ),
        (f"[axes]\nmodel=['lenet5']\nbatch_size=[{5000 * '9'}]\n", "not valid TOML: Exceeds the limit"),
        ("name = '../x'\n[axes]\nmodel=['lenet5']\n", "must be up to 100 letters, digits"),
        ("version = '1'\n[axes]\nmodel=['lenet5']\n", "s.toml:1: version is '1'; it must be a whole number"),
    ],
)
def test_bad_suites_are_refused_with_place_and_reason(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        load_suite(write(tmp_path, text)).cases()


def test_a_suite_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        load_suite(tmp_path / "s.toml")


@pytest.mark.parametrize("override", ["modell=x", "batch_size", "batch_size=", "protocol.min_tme_s=1", "batch_size=x"])
def test_bad_overrides_are_refused(tmp_path, override):
    with pytest.raises(BadInput):
        load_suite(write(tmp_path, "[axes]\nmodel=['lenet5']\n"), [override]).cases()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=x"], r"^-P batch_size=x: batch_size is 'x'; it must be a whole number$"),
        (["batch_size=0"], r"^-P batch_size=0: batch_size is 0; it must be at least 1$"),
        (["precision=fp23"], r"unknown precision 'fp23'; did you mean 'fp32'\? \[-P precision=fp23\]"),
        (["nodes=1", "batch_size=0"], r"^-P batch_size=0: "),
        (["protocol.min_tme_s=1"], r"unknown protocol key 'min_tme_s' in -P protocol.min_tme_s=1; did you mean"),
        (["protocol.min_time_s=x"], r"^-P protocol.min_time_s=x: min_time_s is 'x'; it must be a number"),
        (["protocol.min_time_s=99"], r"^-P protocol.min_time_s=99: protocol.min_time_s is 99.0; it must be at most"),
        (["global_batch=3", "nodes=2"], r"^-P global_batch=3, -P nodes=2: global batch 3 is not divisible"),
        (["global_batch=x"], r"^-P global_batch=x: global_batch is 'x'"),
    ],
)
def test_what_is_wrong_with_an_option_names_the_option_and_not_the_file(tmp_path, overrides, message):
    with pytest.raises(BadInput, match=message) as caught:
        load_suite(write(tmp_path, "[axes]\nmodel=['lenet5']\n"), overrides).cases()
    assert "s.toml" not in str(caught.value)


def test_what_is_wrong_with_the_file_names_the_file_whatever_the_options(tmp_path):
    path = write(tmp_path, "[axes]\nmodel=['lenet5']\nbatch_size=[0]\n")
    with pytest.raises(BadInput, match=r"s.toml: batch_size is 0"):
        load_suite(path, ["precision=fp32", "protocol.min_time_s=1"]).cases()


def test_an_unknown_suite_name_offers_a_near_one():
    with pytest.raises(UnknownName, match="did you mean 'quick'"):
        load_suite("quik")


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_suite_of_the_project_has_cases_and_a_description(path):
    suite = load_suite(path)
    assert suite.cases()
    assert suite.description
    assert suite.name == path.stem
    # Which FLOP and memory a plan shows, whatever length follows the name of a network.
    unknown = {c.model for c in suite.cases() if step_flop(c) is None or predicted_memory_bytes(c) is None}
    assert {name for name in unknown if not name.startswith("frozen:")} == set()


def test_quick_runs_the_six_networks_both_ways_in_fp32():
    cases = load_suite("quick").cases()
    assert {c.model for c in cases} == {"lenet5", "alexnet", "overfeat_fast", "vgg16", "googlenet", "resnet50"}
    assert {c.mode for c in cases} == {"training", "inference"}
    assert {c.precision for c in cases} == {"fp32"}


def test_a_case_survives_json():
    case = Case("vgg16", batch_size=7, protocol=Protocol(min_steps=3))
    assert Case.from_dict(case.to_dict()) == case


def test_the_id_of_a_case_does_not_change_when_an_axis_is_given_its_default():
    assert Case("vgg16").id == Case("vgg16", mode="training", protocol=Protocol(min_time_s=5.0)).id
    assert Case("vgg16").id != Case("vgg16", protocol=Protocol(min_time_s=4.0)).id
    # Written down, so that a change of the ids, which would orphan every stored result, is noticed.
    assert Case("vgg16").id == "e2388f103ea9"


def test_the_id_does_not_depend_on_how_a_number_is_written():
    case = Case("vgg16", protocol=Protocol(timeout_s=20))
    assert Case.from_dict(case.to_dict()).id == case.id == Case("vgg16", protocol=Protocol(timeout_s=20.0)).id


@pytest.mark.parametrize("axis", [a for a in AXES if a != "model"])
def test_every_axis_is_part_of_the_id(axis):
    other = {
        "mode": "inference",
        "precision": "tf32",
        "memory_format": "channels_last",
        "device": "cuda",
        "compile": "default",
        "optimizer": "adam",
        "data": "synthetic_host",
        "backend": "gloo",
        "gradient_as_bucket_view": "on",
        "static_graph": "on",
        "comm_hook": "fp16",
        "optimizer_impl": "foreach",
        **dict.fromkeys(("cuda_graph", "prefetch", "fold_batch_norm", "freeze", "flush_denormals"), "on"),
        "loader": "dali",
    }
    assert Case("vgg16", **{axis: other.get(axis, 17)}).id != Case("vgg16").id


DEVICES = "[axes]\nmodel=['lenet5']\nprecision=['fp32','amp_bf16']\n"


@pytest.mark.parametrize(("device", "left"), [("cuda", ["fp32", "amp_bf16"]), ("cpu", ["fp32"])])
def test_an_exclusion_by_device_is_held_against_the_device_that_runs(tmp_path, device, left):
    text = f"{DEVICES}[[exclude]]\ndevice='cpu'\nprecision='amp_bf16'\n"
    suite = load_suite(write(tmp_path, text))
    assert [c.precision for c in suite.cases(device=device)] == left
    gpu = load_suite(write(tmp_path, text.replace("'cpu'", "'cuda'")))
    assert [c.precision for c in gpu.cases(device="cuda")] == ["fp32"]
    assert [c.precision for c in gpu.cases(device="cpu")] == ["fp32", "amp_bf16"]


def test_where_the_device_is_not_known_yet_nothing_is_excluded_by_it(tmp_path):
    suite = load_suite(write(tmp_path, f"{DEVICES}[[exclude]]\ndevice='cpu'\n"))
    assert len(suite.cases()) == 2
    assert load_suite(write(tmp_path, f"{DEVICES}device=['cuda']\n[[exclude]]\ndevice='cpu'\n")).cases("cpu")


STRONG = "[axes]\nmodel=['lenet5']\nglobal_batch=[64,128]\ndevices_per_node=[1,2,4]\n"


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("batch_size=32", [(64, 1), (64, 4), (128, 1), (128, 2)]),  # of 64 on two devices, of 128 on four
        ("global_batch=128", [(64, 1), (64, 2), (64, 4)]),
        ("global_batch=64\nbatch_size=[16,32]", [(64, 1), (128, 1), (128, 2), (128, 4)]),
        ("world_size=[2,4]", [(64, 1), (128, 1)]),
        ("nodes=1\ndevices_per_node=4", [(64, 1), (64, 2), (128, 1), (128, 2)]),
        ("optimizer='sgd'\nworld_size=1", [(64, 2), (64, 4), (128, 2), (128, 4)]),
    ],
)
def test_an_exclusion_sees_batch_and_devices_as_they_run(tmp_path, pattern, left):
    cases = load_suite(write(tmp_path, f"{STRONG}[[exclude]]\n{pattern}\n")).cases()
    assert [(c.batch_size * c.world_size, c.world_size) for c in cases] == left


def test_an_exclusion_by_the_batch_over_all_devices_holds_where_the_suite_gives_that_of_one(tmp_path):
    text = "[axes]\nmodel=['lenet5']\nbatch_size=[8,16]\nnodes=[1,2]\n[[exclude]]\nglobal_batch=16\n"
    assert [(c.batch_size, c.nodes) for c in load_suite(write(tmp_path, text)).cases()] == [(8, 1), (16, 2)]


def test_a_combination_that_cannot_run_may_be_excluded(tmp_path):
    text = "[axes]\nmodel=['lenet5']\nglobal_batch=[6,8]\ndevices_per_node=[1,4]\n"
    with pytest.raises(BadInput, match="is not divisible"):
        load_suite(write(tmp_path, text)).cases()
    cases = load_suite(write(tmp_path, f"{text}[[exclude]]\nglobal_batch=6\nworld_size=4\n")).cases()
    assert [(c.batch_size, c.world_size) for c in cases] == [(6, 1), (8, 1), (2, 4)]


def test_an_exclusion_by_what_a_case_does_not_use_leaves_it_in(tmp_path):
    text = (
        "[axes]\nmodel=['lenet5']\nmode=['training','inference']\noptimizer=['adam']\n[[exclude]]\noptimizer='adam'\n"
    )
    assert [c.mode for c in load_suite(write(tmp_path, text)).cases()] == ["inference"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("precision='amp_bf61'", "unknown precision 'amp_bf61' in exclude 1 of .*; did you mean 'amp_bf16'"),
        ("device='auto'", "unknown device 'auto' in exclude 1 of"),
        ("world_sise=2", "unknown axis 'world_sise' in exclude 1 of .*; did you mean 'world_size'"),
        ("world_size=2.5", "exclude 1 of .*: world_size is 2.5; it must be a whole number"),
        ("global_batch='64'", "exclude 1 of .*: global_batch is '64'; it must be a whole number"),
        ("batch_size=[]", "axis 'batch_size' in exclude 1 of .* has no values"),
    ],
)
def test_an_exclusion_that_no_case_can_match_is_refused(tmp_path, pattern, message):
    with pytest.raises(BadInput, match=message):
        load_suite(write(tmp_path, f"[axes]\nmodel=['lenet5']\n[[exclude]]\n{pattern}\n"))


def test_rounds_have_one_process_of_each_case_in_an_order_that_depends_on_the_seed_alone(tmp_path):
    text = "[axes]\nmodel=['lenet5']\nbatch_size=[1,2,3,4,5,6]\n"
    suite = load_suite(write(tmp_path, text))
    rounds = suite.process_rounds("cpu")
    assert [{case.repeat for case in one} for one in rounds] == [{0}, {1}, {2}]
    assert all({case.first_process_id for case in one} == {case.id for case in suite.cases("cpu")} for one in rounds)
    orders = [[case.batch_size for case in one] for one in rounds]
    assert orders[0] != orders[1]
    assert suite.process_rounds("cpu") == rounds
    assert load_suite(write(tmp_path, text), ["protocol.seed=1"]).process_rounds("cpu") != rounds


def test_a_suite_that_numbers_its_repeats_itself_has_these_processes_alone(tmp_path):
    suite = load_suite(write(tmp_path, "[axes]\nmodel=['lenet5']\nrepeat=[0, 4]\n"))
    assert [[case.repeat for case in one] for one in suite.process_rounds("cpu")] == [[0], [4]]


def test_processes_are_no_part_of_a_case(tmp_path):
    text = "[axes]\nmodel=['lenet5']\n"
    many = load_suite(write(tmp_path, f"{text}[protocol]\nprocesses=5\nmax_processes=9\n"))
    assert (many.processes, many.max_processes) == (5, 9)
    first = load_suite(write(tmp_path, text)).cases("cpu")
    assert many.cases("cpu") == first
    assert [case.id for case in many.process_rounds("cpu")[0]] == [case.id for case in first]


@pytest.mark.parametrize(
    ("protocol", "overrides", "message"),
    [
        ("processes=0", [], "processes is 0; it must be a whole number from 1"),
        ("processes='x'", [], "processes is 'x'"),
        ("", ["processes=many"], "-P processes=many: processes is 'many'"),
        ("processes=4\nmax_processes=2", [], "max_processes is 2; it must be at least the value of processes, 4"),
    ],
)
def test_numbers_of_processes_that_cannot_be_are_refused(tmp_path, protocol, overrides, message):
    with pytest.raises(BadInput, match=message):
        load_suite(write(tmp_path, f"[axes]\nmodel=['lenet5']\n[protocol]\n{protocol}\n"), overrides)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("cuda_graph='on'\n", "s.toml: cuda_graph is 'on', which works on a GPU only; remove it, or exclude"),
        ("cudnn_benchmark_limit=0\n", "cudnn_benchmark_limit is '0', which works on a GPU only"),
        ("power_cap_w=400\n", "power_cap_w is '400', which works on a GPU only"),
        ("mode='inference'\nfreeze='on'\n", "freeze is 'on', but compile is 'off'"),
    ],
)
def test_axes_that_exclude_each_other_are_refused_in_one_line_once_the_device_is_known(tmp_path, axes, message):
    suite = load_suite(write(tmp_path, f"[axes]\nmodel=['lenet5']\n{axes}"))
    with pytest.raises(BadInput, match=message):
        suite.cases("cpu")


def test_an_axis_of_the_other_device_may_be_excluded(tmp_path):
    text = "[axes]\nmodel=['lenet5']\ncuda_graph=['off','on']\n[[exclude]]\ndevice='cpu'\ncuda_graph='on'\n"
    suite = load_suite(write(tmp_path, text))
    assert [case.cuda_graph for case in suite.cases("cpu")] == ["off"]
    assert [case.cuda_graph for case in suite.cases("cuda")] == ["off", "on"]


def test_cases_do_not_multiply_over_axes_that_they_do_not_use(tmp_path):
    text = "[axes]\nmodel=['lenet5']\nmode=['training','inference']\nfold_batch_norm=['off','on']\nprefetch='on'\n"
    cases = load_suite(write(tmp_path, text)).cases("cuda")
    assert [(c.mode, c.fold_batch_norm) for c in cases] == [
        ("training", "off"),
        ("inference", "off"),
        ("inference", "on"),
    ]
    assert {c.prefetch for c in cases} == {"off"}


def test_values_are_described_where_they_differ_from_the_default():
    found = [describe_axis(axis, value) for axis, value in (("threads", 0), ("threads", 2), ("compile", "off"))]
    assert found == ["", "2 threads", ""]
    assert describe_axis("cuda_graph", "on") == "cuda graph"
    assert describe_axis("compile", "reduce-overhead") == "compile reduce-overhead"


@pytest.mark.parametrize(
    ("axis", "value", "name"),
    [
        ("loader_workers", 1, "1 loader worker"),
        ("loader_workers", 4, "4 loader workers"),
        ("data", "jpeg", "JPEG files"),
        ("data", "synthetic", "synthetic data"),
        ("bucket_cap_mb", 50, "buckets of 50 MB"),
        ("comm_hook", "fp16", "comm hook fp16"),
        ("optimizer", "adam", "adam"),
    ],
)
def test_a_value_is_understood_without_its_heading(axis, value, name):
    assert describe_axis_value(axis, value) == name
