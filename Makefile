# Every target sets up what it needs: a virtual environment in .venv, from wheels alone.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
BIN := .venv/bin
# Tests start hundreds of daemons: each would compile every module again.
export PYTHONDONTWRITEBYTECODE :=
STAMP := .venv/.installed

.PHONY: demo panel vendor test acceptance check lint bench bench-index soak inject fuzz venv clean

demo: $(STAMP)  ## watch slides travel from an inbox into storage
	@$(BIN)/cytowatch demo

PANEL ?= 127.0.0.1:9780
panel: $(STAMP)  ## the demonstration, then its storage in a browser beside a daemon, until Ctrl-C
	@$(BIN)/cytowatch demo
	@$(BIN)/cytowatch run --config demo-root/demo.toml >> demo-root/daemon.log 2>&1 & daemon=$$!; \
	trap "kill $$daemon" EXIT; trap "exit 0" INT TERM; \
	echo; echo "Open http://$(PANEL)/ in a browser. Drop slides into demo-root/root/inbox/ann. Ctrl-C ends it."; \
	$(BIN)/cytowatch panel --root demo-root/root --listen $(PANEL) --actions

vendor: $(STAMP)  ## fetch the files of others (htmx, OpenSeadragon) from npm again, and compare each byte
	@$(BIN)/python docs/vendored.py

TESTS ?= tests/unit tests/integration cytowatch
test: $(STAMP)  ## run the tests that need no server (or TESTS): two and a half minutes on two cores
	$(BIN)/python -m tests.scratch $(BIN)/python -m pytest -n 4 --dist worksteal $(TESTS)

acceptance: $(STAMP)  ## run the tests with real daemons, servers and browsers: they wait more than they work
	$(BIN)/python -m pytest -n 3 --dist worksteal tests/acceptance tests/fuzz tests/panel

check: lint test acceptance  ## what continuous integration runs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP)  ## measure; compares within one run and prints ratios
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.readers
	$(BIN)/python -m benchmarks.many
	$(BIN)/python -m benchmarks.parallel
	$(BIN)/python -m benchmarks.quiet
	$(BIN)/python -m benchmarks.inbox_many
	$(BIN)/python -m benchmarks.panel_tiles

bench-index: $(STAMP)  ## a million uploaded files in the index; takes some minutes
	$(BIN)/python -m benchmarks.index

soak: $(STAMP)  ## ten minutes of drops over SMB while the daemon is killed again and again
	$(BIN)/python -m tests.acceptance.soak

inject: $(STAMP)  ## kill the daemon at, or fail, every system call that matters
	CYTOWATCH_INJECT=all $(BIN)/python -m pytest -q -n 3 --dist worksteal tests/acceptance/test_inject.py

FUZZ_S ?= 300
fuzz: $(STAMP)  ## every fuzzer for FUZZ_S seconds, then every bad sample mutated, through a daemon
	@for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)'); do \
		echo "== $$target"; \
		mkdir -p .fuzz/$$target; \
		$(BIN)/python -m tests.fuzz.run $$target -max_total_time=$(FUZZ_S) -timeout=10 -max_len=16384 \
			-artifact_prefix=.fuzz/defect-$$target- .fuzz/$$target tests/fuzz/corpus/$$target \
			> .fuzz/$$target.log 2>&1 || { tail -40 .fuzz/$$target.log; exit 1; }; \
		tail -1 .fuzz/$$target.log; \
	done
	$(BIN)/python -m tests.fuzz.daemon

venv: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "cytowatch needs Python 3.11 or later on the PATH (or: make PYTHON=/path/to/python)"; exit 1; }
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv || { echo "This Python has no venv; on Debian: apt install python3-venv"; exit 1; }
	@# pyvips itself is published as pure Python source; the libvips that it loads is a wheel.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--only-binary :all: --no-binary pyvips --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf .venv .peers .fuzz demo-root dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
