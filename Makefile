# make bench   measure the six classic networks on this machine and write the report
# make test    prove that the project works
#
# Both set up .venv on first use; Python >= 3.11, pip and make are all they need. On a machine whose Python already has
# the packages (a container, a cluster's module): make bench PY=python3

PYTHON  ?= python3
VENV    ?= .venv
PY      ?= $(VENV)/bin/python
# Left empty, `make bench` takes quick_gpu where PyTorch sees a GPU, and quick elsewhere, with this limit of time.
SUITE   ?=
BUDGET  ?= 270s
RESULTS ?= results
REPORT  ?= reports/latest
ARGS    ?=
# What the device reaches at best, in brief, in the precisions of the suite.
QUICKLY ?=
NAME    ?=

READY := $(if $(filter $(VENV)/bin/python,$(PY)),$(VENV)/.ready,)

.PHONY: help bench test test-cluster test-browser test-gpu test-integrations check format clean overhead reference example

help:
	@sed -n 's/^# //p' Makefile | head -n 5

bench: $(READY)
	@suite='$(SUITE)' quickly='$(QUICKLY)'; \
	if [ -z "$$suite" ] && $(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		suite=quick_gpu quickly=$${quickly:---precision fp32,amp_bf16 --budget 20s}; \
	fi; \
	$(PY) -m dlbench run $${suite:-quick --budget $(BUDGET)} --results $(RESULTS) $(ARGS); status=$$?; \
	if [ $$status -le 1 ]; then \
		$(PY) -m dlbench ceilings $${quickly:---precision fp32 --budget 8s} --missing --results $(RESULTS); \
		$(PY) -m dlbench report $(RESULTS) -o $(REPORT) || exit $$?; \
	fi; exit $$status

# Two processes share the tests where pytest-xdist is installed; each file stays in one, and tests of timing run alone.
TIMED = tests/worker/test_timing.py tests/worker/test_overhead.py tests/worker/meters
test: $(READY)
	@if [ -z '$(ARGS)' ] && $(PY) -c 'import xdist' 2>/dev/null; then \
		$(PY) -m pytest --numprocesses=2 --dist=loadfile $(addprefix --ignore=,$(TIMED)) && $(PY) -m pytest $(TIMED); \
	else $(PY) -m pytest $(ARGS); fi

# Installs Debian's slurm-wlm, munge, docker.io and debootstrap, starts a four-node Slurm and a Docker engine on this machine
# and takes them down again; then runs the main path on Debian sid, with its Slurm and Apptainer. Needs root.
test-cluster: $(READY)
	bash scripts/test-cluster.sh $(PY) $(ARGS)

# Installs Debian's chromium and texlive and opens a report in a real browser; installing needs root.
test-browser: $(READY)
	bash scripts/test-browser.sh $(PY) $(ARGS)

# Checks a GPU, the meters and dlbench's loops on it, within 9 minutes; test-gpu.json has every figure. With the machine's
# own Python: make test-gpu PY=python3. DEVICE=cpu runs the same code without a GPU, in small sizes.
DEVICE ?= cuda
test-gpu: $(READY)
	rm -f test-gpu.json
	DLBENCH_TEST_GPU=$(DEVICE) $(PY) -m pytest tests/gpu $(ARGS)

# Installs ReFrame, JUBE, Ramble and mlperf-logging and lets them run dlbench; installing JUBE needs root.
test-integrations: $(READY)
	bash scripts/test-integrations.sh $(PY) $(ARGS)

# Measures this machine and publishes it under reports/reference-NAME: make reference NAME=epyc-7b13 SUITE='quick scaling_weak'
# Without SUITE the one that fits the device. A call ends after CALL_SECONDS (0: no limit); the same command resumes.
CALL_SECONDS ?= 540
reference: $(READY)
	bash scripts/reference.sh $(PY) '$(NAME)' '$(SUITE)' $(RESULTS) '$(CALL_SECONDS)'

# Measures one thread against two on this machine and publishes the comparison under reports/example-threads: make example
example: $(READY)
	bash scripts/example.sh $(PY) $(RESULTS)-example

# What measuring costs; on a quiet machine. ARGS=--write puts the outcome into docs/experiments/overhead.md.
overhead: $(READY)
	$(PY) benchmarks/experiments/overhead.py $(ARGS)

check: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	rm -rf build && $(PY) -m build --no-isolation --outdir build . && $(PY) -m twine check --strict build/*
	git ls-files -z '*.sh' '.ci/run' 'slurm/*.sh' | xargs -0 -r $(VENV)/bin/shellcheck

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info

$(VENV)/.ready: pyproject.toml scripts/make-venv.sh
	bash scripts/make-venv.sh $(PYTHON) $(VENV)
	touch $@
