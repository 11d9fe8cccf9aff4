# The README's two commands, `make docs` (docs/ as a site), and the long fault suite (docs/safety.md). Each makes .venv
# where there is none, and installs requirements.txt into it.
PYTHON ?= python3

.PHONY: demo test test-faults coverage docs install
demo: install
	.venv/bin/colmrl loop --config demo

test: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	OMP_NUM_THREADS=1 .venv/bin/pytest -n auto --maxprocesses 4

docs: install
	.venv/bin/python -m sphinx -b html -q -W --keep-going docs outputs/docs

test-faults: install
	OMP_NUM_THREADS=1 .venv/bin/python benchmarks/run.py faults --times 25

# Line coverage of all tests, and of what they start or fork; TESTS: some of them.
COVERAGE = COVERAGE_FILE=$(CURDIR)/outputs/coverage/data .venv/bin/python -m coverage
coverage: install
	.venv/bin/python -m pip install --quiet --disable-pip-version-check coverage==7.17.5
	rm -rf outputs/coverage && mkdir -p outputs/coverage
	-OMP_NUM_THREADS=1 $(COVERAGE) run -m pytest $(TESTS)
	$(COVERAGE) combine --quiet && $(COVERAGE) report && $(COVERAGE) json --quiet -o outputs/coverage/report.json
	.venv/bin/python benchmarks/run.py covered

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
