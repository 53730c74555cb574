# Everything a newcomer needs; `make` alone lists it. Only Python 3.11+, git and a package manager must be there.
.DEFAULT_GOAL := help
.PHONY: help up demo test unit integration e2e chaos mutations bench check lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
BENCH_STAMP := $(VENV)/.bench-complete
PYTEST := $(BIN)/pytest

help: ## List what there is to make
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: $(STAMP) ## Run everything here, privately and in the foreground; Ctrl-C stops it
	@exec $(BIN)/chiffon up --with-parent

demo: $(STAMP) ## Bring everything up, do real work, show what came of it, stop
	@exec $(BIN)/chiffon demo

test: $(STAMP) ## Run every test
	@$(BIN)/python -m chiffon.devstack.packages
	@$(PYTEST)

unit: $(STAMP) ## Run the tests that need nothing running
	@$(PYTEST) tests/unit

integration: $(STAMP) ## Run the tests against one real service at a time
	@$(PYTEST) tests/integration

e2e: $(STAMP) ## Run the end-to-end scenarios
	@$(PYTEST) -m e2e

chaos: $(STAMP) ## Try to break everything for MINUTES with FAULTS and TASKS, as SEED says; QUEUE_TYPE=quorum
	@$(BIN)/python -m tests.chaos $(and $(SEED),--seed $(SEED)) $(and $(TASKS),--tasks $(TASKS)) \
	  $(and $(MINUTES),--minutes $(MINUTES)) $(and $(FAULTS),--faults $(FAULTS)) \
	  $(and $(QUEUE_TYPE),--queue-type $(QUEUE_TYPE))

mutations: $(STAMP) ## Take out each mechanism that the guarantees rest on, and see which test notices
	@$(BIN)/python -m tests.chaos.mutations

bench: $(BENCH_STAMP) ## Measure, beside what others would use; QUICK=1: a few minutes; ONLY=drain,latency: some of it
	@$(BIN)/python -m benchmarks $(and $(QUICK),--quick) $(and $(ONLY),--only $(ONLY)) $(and $(SEED),--seed $(SEED))

check: $(STAMP) ## Lint, formatting, types, and which room may import which
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: $(STAMP) ## Pin anew, in requirements.txt, what pyproject.toml asks for
	@.ci/lock $(BIN)/python

clean: ## Remove the virtual environment, caches and left-over stacks
	@rm -rf $(VENV) .chiffon .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info

$(STAMP): requirements.txt pyproject.toml
	@.ci/venv $(VENV)
	@touch $@

$(BENCH_STAMP): $(STAMP) benchmarks/requirements.txt
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --root-user-action=ignore \
	  --no-deps --requirement benchmarks/requirements.txt
	@touch $@
