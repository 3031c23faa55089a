# Each target does all the set-up it needs: nothing has to be installed before it but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
BENCH ?= channel gateway api fleet startup agent_memory party_memory schedules planner split_step

.PHONY: help setup demo test test-all check format bench soak clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make .venv with everything in it

$(READY): pyproject.toml client_agent/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable client_agent --editable '.[dev]'
	touch $@

demo: $(READY)  ## three silos fine-tune one model together, every part a process; flags by ARGS="..."
	$(BIN)/trunkline demo $(ARGS)

test: $(READY)  ## the fast tests; some of them: ARGS="tests/unit/wire -k int8"
	$(call pytest,-m "not slow")

test-all: $(READY)  ## all tests: also those that kill and restart whole platforms
	$(call pytest,)

# Suite by suite, each with its seconds, all of them also after a failure. Tests that start no platform run two at
# a time; a platform is many processes already. No test collected (5) is no failure: some suites are all slow.
define pytest
	@if [ -n '$(ARGS)' ]; then exec $(BIN)/pytest $(1) $(ARGS); fi; failed=; \
	for suite in "-n 2 --dist loadfile tests/unit tests/fuzz" tests/contract tests/integration tests/faults; do \
		echo "== $$suite"; $(BIN)/pytest $(1) $$suite || [ $$? -eq 5 ] || failed="$$failed $$suite"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi
endef

check: $(READY)  ## formatting, lints, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## benchmarks, each prints its table; one alone: make bench BENCH=split_step ARGS="--dim 512"
	@for name in $(BENCH); do $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

soak: $(READY)  ## an hour of random faults on a whole platform; shorter: make soak ARGS="--minutes 5"
	$(BIN)/python -m bench.soak $(ARGS)

clean:  ## remove everything that the other targets made
	rm -rf $(VENV) build client_agent/build dist runs *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
