# Everything here sets itself up: no root, no service running beforehand.
PYTHON  ?= python3
BIN     := .venv/bin
SPEED   ?= 60
SCENARIO ?= storm
SECONDS ?=
PAGE    ?=
COUNT   ?=
JOBS    ?= 2

.PHONY: demo test check audit bench scoreboard faults campaign package container screenshots lock clean setup
.DEFAULT_GOAL := demo

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pondwatch needs Python 3.11 or newer; $(PYTHON) is older: choose one with make PYTHON=python3.12" >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing: install Debian's package python3-venv and run make again" >&2; exit 3; }
	@echo "setting up .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch .venv/ready

demo: setup
	@$(BIN)/python -m hardware_sim.demo --scenario $(SCENARIO) --speed $(SPEED) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PAGE),--page $(PAGE))

# Two files of tests at a time: most of their time they wait. JOBS=0 is one after the other.
test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@mkdir -p build && cp .secrets.baseline build/secrets.baseline    # a copy: it is rewritten when lines move (exit 3)
	@$(BIN)/detect-secrets-hook --baseline build/secrets.baseline $$(git ls-files) || [ $$? -eq 3 ]

# Known vulnerabilities of what the lock names, asked of the package index, and every licence: a package that could
# not be audited, or a licence that is not on the list, is a failure.
LICENCES := Apache;BSD;MIT;MPL;Mozilla;PSF;Python Software Foundation;Public Domain;ISC;LGPL;EPL-2.0;any-OSI;Zlib;CC0
audit: setup
	@$(BIN)/pip-licenses --order=license --partial-match --allow-only="$(LICENCES)" \
	    --format=markdown --ignore-packages pondwatch
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

bench: setup
	@$(BIN)/python -m tests.bench $(ARGS)

# Detectors on real data beside plain baselines: writes docs/scoreboard.md; PARTS= for some of it, on screen only.
scoreboard: setup
	@$(BIN)/python -m tests.score $(PARTS)

faults: setup
	@$(BIN)/python -m tests.fault $(ARGS)

campaign: setup
	@COUNT=$(COUNT) SECONDS=$(SECONDS) $(BIN)/python -m pytest -m campaign --timeout 0 -s $(ARGS)

# Wheel, Debian package, offline bundle in dist/, and the wheels an arm64 gateway would be given. The bundle is signed
# with the key named by PONDWATCH_SIGNING_KEY, or with one made for it alone.
package: setup
	@$(BIN)/python -m systemd.package
	@$(BIN)/python -m systemd.package --resolve arm64

# The package in a bare Debian 12 that systemd boots: wants root, systemd-container and mmdebstrap; a few minutes.
container: setup
	@$(BIN)/python -m pytest -m "campaign or not campaign" --timeout 900 -s tests/package $(ARGS)

# The bench's page in the storm, for docs/bench.md; needs Debian's chromium and fonts-noto-cjk.
screenshots: setup
	@$(BIN)/python -m tests.hardware_sim.screenshots

# The lock names every wheel by hash; made with uv, read by pip.
lock:
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock

clean:
	rm -rf .venv build dist
