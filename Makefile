# Each target does all the set-up it needs: nothing has to be installed before it but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
BENCH ?= channel gateway api fleet startup agent_memory party_memory schedules planner split_step generate

.PHONY: help setup demo test test-all test-long run-tests check format bench soak clean

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
	@$(MAKE) --no-print-directory run-tests MARK='-m "not slow and not long"'

test-all: $(READY)  ## also those that kill and restart whole platforms; 35 to 60 minutes on two cores
	@$(MAKE) --no-print-directory run-tests MARK='-m "not long"'

test-long: $(READY)  ## the rest: a minute each on whole platforms
	$(BIN)/pytest -m long $(ARGS)

# Suite by suite, each with its seconds, and all of them also after a failure. In two lanes side by side, about
# as long as each other: platforms wait as much as they compute. Each suite is shown when it is through.
run-tests:
	@if [ -n '$(ARGS)' ]; then exec $(BIN)/pytest $(MARK) $(ARGS); fi; \
	echo "two lanes of suites side by side; what a suite says comes at its end"; \
	$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target lane-first lane-second

lane-first: LANE := integration library
lane-second: LANE := backend contract faults
lane-%:
	@failed=0; for suite in $(LANE); do $(MAKE) --no-print-directory suite-$$suite || failed=1; done; exit $$failed

suite-backend: TESTS := tests/unit/backend tests/unit/gateway
suite-library: TESTS := --ignore tests/unit/backend --ignore tests/unit/gateway tests/unit tests/fuzz
suite-contract: TESTS := tests/contract
suite-integration: TESTS := tests/integration
suite-faults: TESTS := tests/faults

# No test collected (5) is no failure: a suite may be slow as a whole.
suite-%:
	@$(BIN)/pytest $(MARK) $(TESTS) || [ $$? -eq 5 ]

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
