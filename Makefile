# Every target sets up .venv by itself, and says so. Works with GNU make 3.81 and with BSD make.

.PHONY: help run test soak bench bench-quick check clean .venv-run .venv-test .venv-check

help:
	@echo "make run     run the worker"
	@echo "make test    run the tests"
	@echo "make soak    cause the faults many times over: about half an hour"
	@echo "make bench   measure the whole way, beside other systems, and write benchmarks/RESULTS.md"
	@echo "make check   run ruff, import-linter and mypy"
	@echo "make clean   remove .venv and what tools have left; storage/ and .env stay"
	@echo
	@echo "Each sets up .venv when it is missing or stale, with python3 or, say, make run PYTHON=/opt/python3.13/bin/python3"

run: .venv-run
	@exec .venv/bin/python main.py

test: .venv-test
	.venv/bin/python -m pytest --dist worksteal -n $$(.venv/bin/python -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')

soak: .venv-test
	ROUTEMQ_SOAK=1 .venv/bin/python -m pytest tests/faults --timeout 1800 -n $$(.venv/bin/python -c 'import os; print(min(os.cpu_count() or 1, 4))')

bench: .venv-test
	.venv/bin/python -m benchmarks.whole_way

bench-quick: .venv-test
	.venv/bin/python -m benchmarks.whole_way --quick

check: .venv-check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-logo
	.venv/bin/mypy

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp in .venv says for which target it was last installed. What check needs holds what test needs, and so on.
.venv-run .venv-test .venv-check:
	@set -e; \
	case $@ in \
	.venv-run)  extras='';           enough='run test check' ;; \
	.venv-test) extras='[test]';     enough='test check' ;; \
	*)          extras='[dev,test]'; enough='check' ;; \
	esac; \
	new_enough='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	if [ -e .venv ]; then \
		reason=''; \
		.venv/bin/python -c "$$new_enough" 2>/dev/null || reason='its Python is gone or too old'; \
		head -n 3 .venv/bin/pip 2>/dev/null | grep -qF "$$(pwd -P)/.venv/bin/" || reason='it was made in another place, or without pip'; \
		if [ -n "$$reason" ]; then echo "removing .venv: $$reason"; rm -rf .venv; fi; \
	fi; \
	if [ ! -e .venv ]; then \
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
		echo "making .venv with $$("$$python" --version)"; \
		"$$python" -m venv .venv; \
	fi; \
	for each in $$enough; do \
		if [ -e .venv/.venv-$$each ] && [ -z "$$(find pyproject.toml -newer .venv/.venv-$$each)" ]; then exit 0; fi; \
	done; \
	echo "installing the packages of pyproject.toml$$extras into .venv"; \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$$extras"; \
	touch .venv/$@
