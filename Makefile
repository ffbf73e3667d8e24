# Every target sets up .venv by itself, and says so. Works with GNU make 3.81 and with BSD make.

.PHONY: help run test test-quick coverage simulate soak bench bench-quick check clean .venv-run .venv-test .venv-check

# A folder of this one; each Python version needs its own.
VENV = .venv
# For tests: one process more than cores, because many tests wait.
PROCESSES = $$($(VENV)/bin/python -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')
# For make simulate.
SEEDS = 10000
SEED =
SET = all
# What differs most between Python versions, in about a minute.
QUICK = tests/test_*.py tests/codecs tests/database tests/delivery tests/routing tests/testing

help:
	@echo "make run         run the worker"
	@echo "make test        run the tests"
	@echo "make test-quick  run the tests that Python versions differ in most, on SQLite: about a minute"
	@echo "make coverage    run the tests, and fail below the floor of coverage that pyproject.toml names"
	@echo "make simulate    run the engine on virtual time against 10,000 seeds: SEEDS=100000 runs more, SEED=17 tells one"
	@echo "make soak        cause the faults many times over, and end with a table of them: about half an hour"
	@echo "make bench       measure the whole way, beside other systems, and write benchmarks/RESULTS.md"
	@echo "make check       run ruff, import-linter and mypy"
	@echo "make clean       remove .venv and what tools have left; storage/ and .env stay"
	@echo
	@echo "Each sets up .venv when it is missing or stale, with python3 or, say, make run PYTHON=/opt/python3.13/bin/python3"
	@echo "Beside it, for another version: make test-quick VENV=.venv-3.13 PYTHON=/opt/python3.13/bin/python3"

run: .venv-run
	@exec $(VENV)/bin/python main.py

test: .venv-test
	$(VENV)/bin/python -m pytest --dist worksteal -n $(PROCESSES)

test-quick: .venv-test
	$(VENV)/bin/python -m pytest $(QUICK) -k 'not postgresql' --dist worksteal -n $(PROCESSES)

coverage: .venv-test
	$(VENV)/bin/python -m pytest --cov --dist worksteal -n $(PROCESSES) --ignore tests/simulation
	$(VENV)/bin/python -m pytest tests/simulation --dist worksteal -n $(PROCESSES) # counting lines makes it three times slower

simulate: .venv-test
	$(VENV)/bin/python -m tests.simulation --seeds '$(SEEDS)' --seed '$(SEED)' --set '$(SET)'

soak: .venv-test
	ROUTEMQ_SOAK=1 $(VENV)/bin/python -m pytest tests --timeout 1800 -n $$($(VENV)/bin/python -c 'import os; print(min(os.cpu_count() or 1, 4))')

bench: .venv-test
	$(VENV)/bin/python -m benchmarks.whole_way

bench-quick: .venv-test
	$(VENV)/bin/python -m benchmarks.whole_way --quick

check: .venv-check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/mypy

clean:
	rm -rf .venv .venv-3.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp in $(VENV) says for which target it was last installed. What check needs holds what test needs, and so on.
.venv-run .venv-test .venv-check:
	@set -e; \
	case $@ in \
	.venv-run)  extras='';           enough='run test check' ;; \
	.venv-test) extras='[test]';     enough='test check' ;; \
	*)          extras='[dev,test]'; enough='check' ;; \
	esac; \
	new_enough='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	if [ -e $(VENV) ]; then \
		reason=''; \
		$(VENV)/bin/python -c "$$new_enough" 2>/dev/null || reason='its Python is gone or too old'; \
		head -n 3 $(VENV)/bin/pip 2>/dev/null | grep -qF "$$(pwd -P)/$(VENV)/bin/" || reason='it was made in another place, or without pip'; \
		if [ -n "$$reason" ]; then echo "removing $(VENV): $$reason"; rm -rf $(VENV); fi; \
	fi; \
	if [ ! -e $(VENV) ]; then \
		python=''; \
		wanted='$(PYTHON)'; \
		for each in $${wanted:-python3 python3.13 python3.12 python3.11}; do \
			if "$$each" -c "$$new_enough" 2>/dev/null; then python=$$each; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "RouteMQ needs Python 3.11 or newer with its venv module (on Debian: python3-venv);" \
				"$${wanted:-python3} is not: name one with PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv $(VENV); \
	fi; \
	for each in $$enough; do \
		if [ -e $(VENV)/.venv-$$each ] && [ -z "$$(find pyproject.toml -newer $(VENV)/.venv-$$each)" ]; then exit 0; fi; \
	done; \
	echo "installing the packages of pyproject.toml$$extras into $(VENV)"; \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$$extras"; \
	touch $(VENV)/$@
