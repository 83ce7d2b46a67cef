.DEFAULT_GOAL := help
.PHONY: help install demo test test-faults check lint types docs bench-training bench-annotation bench-adaptation run lock clean
PY := .venv/bin/python

help: ## list what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 18

install: ## make .venv from the pinned locks (nothing to do if it is current)
	@sh requirements/install.sh

demo: install ## the whole loop on real data; SERVE=0 stops after it, FRESH=1 starts clean
	@DATA_DIR="$${DATA_DIR:-var/demo}" $(PY) manage.py demo

test: install ## the whole suite; PostgreSQL, Redis and Chromium are used where they are found
	@sh .ci/chromium.sh
	@$(PY) .ci/tests.py

test-faults: install ## kill, stop, fill and starve it: an hour, with a table of figures
	@$(PY) -m pytest -v tests/faults

check: lint types ## lint, types, import contracts, Django's checks, migrations
	@$(PY) manage.py check
	@$(PY) manage.py makemigrations --check --dry-run

lint: install ## ruff and the import contracts
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports --no-cache

types: install ## mypy
	@$(PY) -m mypy rlhf_platform annotate training

docs: install ## the pages that are written from the code (metrics)
	@$(PY) -m training.engine.metrics > docs/reference/metrics.md

bench-training: install ## the engine against stock TRL, side by side; wants an idle machine; ONLY= selects rows
	@$(PY) -m benchmarks.training

bench-annotation: install ## judging over HTTP with 1, 8 and 32 people; wants an idle machine
	@$(PY) -m benchmarks.annotation

bench-adaptation: install ## train, retrieve or prompt on real data: one table, half an hour; ONLY= selects stages
	@$(PY) -m benchmarks.adaptation

run: install ## web, worker and embedded broker on http://127.0.0.1:8000
	@$(PY) manage.py up

lock: ## resolve requirements/*.in again
	@python3 -m venv .lock-venv
	@.lock-venv/bin/python -m pip install --quiet --upgrade pip
	@.lock-venv/bin/python requirements/lock.py
	@rm -rf .lock-venv

clean: ## remove what make install made (data in var/ stays)
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
