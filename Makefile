# `make run` starts everything, `make test` tests everything. Each does its own set-up.

PORT ?= 8000
HOST = 127.0.0.1
JOBS ?= 3
HISTORIES ?= 20000
SHELL = /bin/sh
PY = .venv/bin/python

.PHONY: help run test fault bench bench-profile bench-ledger soak check lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: ## start Lockstep with its demo on http://127.0.0.1:8000/ (PORT=…, HOST=…)
	@python=$$(deploy/find-python.sh) \
	&& "$$python" -m apps.console.instance --host $(HOST) --port $(PORT) \
	&& deploy/install.sh base \
	&& exec $(PY) manage.py up --host $(HOST) --port $(PORT)

test: ## run all tests; says which ones were left out and why (ARGS=… goes to pytest)
	@deploy/install.sh dev
	@$(PY) deploy/test_services.py -- $(PY) -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

fault: ## run the tests that kill real processes
	@deploy/install.sh dev
	@$(PY) deploy/test_services.py -- $(PY) -m pytest -m processes $(ARGS)

bench: ## every job beside its physical limit, five pairs each (PEERS=1, ARGS=--rows=… --job=…)
	@deploy/install.sh dev
	@$(PY) deploy/test_services.py -- $(PY) -m bench.suite --write $(ARGS)

bench-profile: ## the same once each, with flame graphs in bench/profiles
	@deploy/install.sh dev
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) deploy/test_services.py -- \
		$(PY) -m bench.suite --pairs 1 --flame-graphs bench/profiles $(ARGS)

bench-ledger: ## what support staff ask, on ten million changes (ARGS=--rows=…)
	@deploy/install.sh dev
	@$(PY) deploy/test_services.py -- $(PY) -m bench.ledger $(ARGS)

soak: ## many more random histories than make test plays (HISTORIES=…)
	@deploy/install.sh dev
	@seed=$${LOCKSTEP_TEST_SEED:-$$(date +%s)} && echo "LOCKSTEP_TEST_SEED=$$seed" \
	&& LOCKSTEP_TEST_SEED=$$seed LOCKSTEP_TEST_HISTORIES=$(HISTORIES) \
	$(PY) deploy/test_services.py -- $(PY) -m pytest -n $(JOBS) tests/invariants $(ARGS)

check: ## lint, types, architecture, insecure patterns, settings, migrations, known vulnerabilities
	@deploy/install.sh dev
	@deploy/check.sh

lock: ## write requirements/*.txt anew from requirements/*.in
	@deploy/lock.sh

clean: ## remove .venv and caches; the data folder stays
	rm -rf .venv .venv-lock .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
