PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: install demo test check bench bench-serving faults kafka lock

install: $(STAMP)

# The lock holds every version and hash, the build backend's included, so nothing is resolved here.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tiltyard needs Python 3.11 or newer, got " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	$(BIN)/tiltyard demo $(ARGS)

test: install
	$(BIN)/pytest $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/architecture

bench: install
	$(BIN)/python -m benchmarks $(ARGS)

# Beside other Python servers, each installed when it is first measured: about an hour; ARGS="--quick" takes minutes.
bench-serving: install
	$(BIN)/python -m benchmarks.serving $(ARGS)

# All rounds of every fault: more than an hour. It writes the table of the README to tests/faults/results.
faults: install
	$(BIN)/python -m tests.faults $(ARGS)

# A broker to try things with, on a free port or the one in ARGS, until Ctrl-C; needs Java and Maven.
kafka: install
	$(BIN)/python -m tests.kafka $(ARGS)

# One lock for Linux and macOS alike; it names packages and hashes, never where they come from.
lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --all-extras --output-file requirements.lock pyproject.toml $(ARGS)
	for client in triton kserve mlserver; do \
		$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
			--python-version 3.11 --output-file tests/clients/requirements/$$client.txt \
			tests/clients/requirements/$$client.in $(ARGS) || exit 1; done
