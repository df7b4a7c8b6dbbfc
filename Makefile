# Camdock's day. `make` alone explains itself; CONTRIBUTING.md explains the rest.
# Needs GNU make, bash 5 and Python 3.11 to 3.13; everything else arrives with `make setup`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# ------------------------------------------------------------------------------------------------ the environment
# .venv holds stamps named after what they were made from: .made-<this folder>, .run-<the pins>, .test-<the pins>,
# .lint-<the pins>, .fuzz-<the pins>. A stamp is written last, so an interrupted step is done again; another folder or other pins ask
# for stamps that are not there.

VENV ?= .venv
PY := $(VENV)/bin/python
export PYTHON ?=

version_of = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PLACE := $(shell printf '%s' '$(CURDIR)' | cksum | cut -d ' ' -f 1)
PINS := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
MADE := $(VENV)/.made-$(PLACE)
RUN := $(VENV)/.run-$(PINS)
TEST := $(VENV)/.test-$(PINS)
LINT := $(VENV)/.lint-$(PINS)
FUZZ := $(VENV)/.fuzz-$(PINS)

# A venv whose Python does not start any more, or is not the one asked for, is made anew.
HAVE := $(if $(wildcard $(PY)),$(call version_of,$(PY)))
ifneq ($(HAVE),$(if $(PYTHON),$(call version_of,$(PYTHON)),$(HAVE)))
REMAKE := FORCE
endif
ifeq ($(HAVE),)
REMAKE := FORCE
endif

export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Many container images set it; without cached bytecode every pytest worker rewrites every test's asserts again.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(PY) -m pip install -qq --no-warn-script-location --prefer-binary

# For `verify`: a make of its own, so that `make -n verify` runs nothing and -j does not share its jobs.
AGAIN := env -u MAKEFLAGS $(MAKE) --no-print-directory VENV=$(VENV)

define SHELL_WORDS
failed=0
part() { # part NAME COMMAND...: runs it, says how long it took, remembers a failure
  local name=$$1 began=$${EPOCHREALTIME/[.,]/} result=ok
  shift
  printf '== %s\n' "$$name"
  "$$@" || { result=FAILED; failed=1; }
  local took=$$(( ($${EPOCHREALTIME/[.,]/} - began) / 100000 ))
  printf -- '-- %s: %s, %d.%d s\n' "$$name" "$$result" $$((took / 10)) $$((took % 10))
}
# again PYTEST... [-- MORE...]: what failed is run once more, without MORE, alone and in sight. A deadline may be missed
# because of a neighbour on the machine; a test that fails only then says nothing about the code. It ends well only where
# as many tests have run again and passed as failed before: a file that cannot be collected, a pytest that breaks or is
# stopped (any status but 1), failures that are no tests and tests that are skipped the second time are red.
again() {
  local command=() more=() status=0 count cache=.pytest_cache/v/cache/lastfailed report=$(VENV)/again.xml
  while [ $$# -gt 0 ] && [ "$$1" != -- ]; do command+=("$$1"); shift; done
  if [ $$# -gt 0 ]; then shift; more=("$$@"); fi
  rm -f "$$cache" "$$report" # of another run
  "$${command[@]}" "$${more[@]}" || status=$$?
  [ "$$status" != 0 ] || return 0
  count=$$(grep -cs '": true,\{0,1\}$$' "$$cache" || true)
  if [ "$$status" != 1 ] || [ "$${count:-0}" = 0 ] || grep '": true,\{0,1\}$$' "$$cache" | grep -qv '::'; then
    printf '== not once more: pytest ended with %d, and not because of tests alone\n' "$$status"
    return "$$status"
  fi
  printf '== once more, what failed\n'
  "$${command[@]}" --last-failed --last-failed-no-failures none --junitxml="$$report" || return
  if ! grep -q "skipped=\"0\" tests=\"$$count\"" "$$report"; then
    printf '== of what failed (%d), not everything ran again\n' "$$count"
    return 1
  fi
}
skipped() { printf '== %s\n-- %s: skipped, %s\n' "$$1" "$$1" "$$2"; }
one_at_a_time() { exec 9<Makefile; ! command -v flock >/dev/null || flock 9; } # pip, under `make -j`
packages() { # packages EXTRA: the lines of that extra in pyproject.toml
  $(PY) -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")' "$$1"
}
extra() { # extra NAME WORDS: installs that extra of pyproject.toml, saying so in these words
  one_at_a_time
  echo "Installing $$2 ..."
  packages "$$1" >"$(VENV)/$$1.txt"
  $(PIP) -r "$(VENV)/$$1.txt" || broke
}
broke() { printf 'Not installed: pip says why above. `make setup` goes on from here.\n' >&2; exit 1; }
endef

.PHONY: help
help: ## Everything there is (this)
	@sed -n 's/^##@ \(.*\)/\n\1/p; s/^\([a-z-]*\):.*## \(.*\)/  make \1 \2/p' Makefile \
	  | awk '$$1 == "make" { name = $$2; sub(/^ *make [a-z-]* /, ""); printf "  make %-9s %s\n", name, $$0; next } { print }'
	printf '%s\n' '' 'Examples' \
	  "  make run SOURCE='v4l2:/dev/video0?size=1280x720'     in quotes: the shell reads ? and &" \
	  "  make run SOURCE=synthetic: HOST=0.0.0.0 PORT=8080    also TOKEN=..., SOURCES=..." \
	  "  make setup PYTHON=python3.12                         a Python of your choice" \
	  "  make test ARGS='-k camera -x'                        pytest's own words"

##@ Use

.PHONY: setup
setup: $(RUN) ## The environment in .venv, NumPy first; nothing to do: nothing done
	@echo "Ready: $(VENV), Python $$($(PY) -c 'import platform; print(platform.python_version())'). Next: make run"

# Only what is given on the command line counts: HOST and PORT are set in many shells for other reasons.
# The value travels in the environment, never through a shell's text: `&`, `?` and spaces stay what they are.
given = $(filter command line,$(origin $(1)))
define PASSED
ifneq ($$(call given,$(1)),)
run: export CAMDOCK_$(1) = $$(value $(1))
endif
endef
$(foreach name,SOURCE SOURCES HOST PORT TOKEN,$(eval $(call PASSED,$(name))))

.PHONY: run
run: $(RUN) ## Pictures on http://localhost:8000; SOURCE= HOST= PORT= TOKEN= set it up
	@exec $(PY) -m camdock

##@ Prove

# Most process tests wait for something: more of them at once than there are cores, but each worker imports everything.
# How tests are handed out: tests/tools/together.py. A worker that dies is not started again: xdist 3.8 would wait for ever
# for the one that takes its place.
WORKERS ?= 4

.PHONY: test
test: $(TEST) ## Unit and process tests; ARGS= goes to pytest
	@$(SHELL_WORDS)
	part "test bed" tests/testbed/packages.sh
	[ "$$failed" = 0 ] || exit 1
	side_by_side() { again $(PY) -m pytest -m "not slow" $(ARGS) -- -n $(WORKERS) --max-worker-restart 0; }
	part "tests on Python $$($(PY) -c 'import platform; print(platform.python_version())')" side_by_side
	exit "$$failed"

.PHONY: lint
lint: $(LINT) ## Format, code, types, layers, shell, YAML
	@$(SHELL_WORDS)
	shellcheck=$(VENV)/bin/shellcheck
	[ -x "$$shellcheck" ] || shellcheck=$$(command -v shellcheck || true)
	mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
	mapfile -t yaml < <(git ls-files --cached --others --exclude-standard '*.yml' '*.yaml')
	part "format (ruff format)" $(VENV)/bin/ruff format --quiet --check .
	part "code (ruff check)" $(VENV)/bin/ruff check --quiet .
	part "types (mypy)" $(PY) -m mypy --no-error-summary
	part "layers (lint-imports)" $(VENV)/bin/lint-imports
	if [ -n "$$shellcheck" ]; then part "shell (shellcheck)" "$$shellcheck" "$${scripts[@]}"
	else skipped "shell (shellcheck)" "no wheel for this machine: apt install shellcheck"; [ "$${CI:-}" != true ] || failed=1
	fi
	part "YAML (yamllint)" $(VENV)/bin/yamllint --strict "$${yaml[@]}"
	exit "$$failed"

.PHONY: fmt
fmt: $(LINT) ## Put the format and the imports right
	@$(VENV)/bin/ruff check --quiet --select I --fix .
	$(VENV)/bin/ruff format --quiet .

.PHONY: bench
bench: $(TEST) ## Speed, peers beside us, on a quiet machine; ARGS=--short
	@tests/testbed/packages.sh
	exec $(PY) -m tests.bench $(ARGS)

.PHONY: verify
verify: $(TEST) $(LINT) $(FUZZ) ## What `make test` leaves out: lint, pins, slow tests, the page, old and other versions
	@$(SHELL_WORDS)
	part "lint" $(AGAIN) lint
	part "test bed" tests/testbed/packages.sh chromium clang g++ gcc-aarch64-linux-gnu libc6-dev-arm64-cross mmdebstrap prometheus
	plan() { $(PY) -m camdock.abi plan "$$@"; }
	part "pins: constraints.txt" plan constraints.txt -r pyproject.toml
	part "pins: picamera2" plan docker/pins/picamera2.txt -r docker/pins/picamera2.in -r 'pyproject.toml[all]' --python 3.13
	part "pins: NumPy 1.x" plan docker/pins/numpy1.txt -r docker/pins/numpy1.in -r 'pyproject.toml[all]' --python 3.11
	part "slow tests of camdock abi" again $(PY) -m pytest tests/abi -m slow -- -n 2 --dist loadfile
	part "slow tests" again $(PY) -m pytest tests/process tests/unit -m slow
	part "fuzz" $(PY) -m tests.abi.fuzz --seconds 60
	part "page" again $(PY) -m pytest tests/page
	part "bench" $(AGAIN) bench ARGS=--short
	part "oldest FastAPI and uvicorn" tests/testbed/oldest.sh $(PY)
	for version in 3.11 3.12 3.13; do
	  [ "$$version" != "$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" ] || continue
	  other=
	  for candidate in "python$$version" "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version".*/bin/python; do
	    if "$$candidate" -c 'import ensurepip' 2>/dev/null; then other=$$candidate; fi
	  done
	  if [ -n "$$other" ]; then part "tests, Python $$version" $(AGAIN) test ARGS= VENV=".venv-$$version" PYTHON="$$other"
	  else skipped "tests, Python $$version" "not on this machine"
	  fi
	done
	exit "$$failed"

.PHONY: upgrade
upgrade: $(RUN) ## Move the pins to the newest clean set, or change nothing; ARGS="--dry-run", "--only NAME", "--hold NAME"
	@exec $(PY) -m camdock.abi upgrade constraints.txt -r pyproject.toml $(ARGS)

##@ The machine

.PHONY: testbed
testbed: ## What the tests need from Debian: compilers, ustreamer, chromium, prometheus ... (root installs it)
	@tests/testbed/packages.sh chromium clang fuse3 g++ gcc-aarch64-linux-gnu libc6-dev-arm64-cross mmdebstrap prometheus

.PHONY: clean
clean: ## Remove what make made: environments, caches
	@rm -rf .venv .venv-3.* .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist service/*.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# -------------------------------------------------------------------------------------------------------- stamps

.PHONY: FORCE
FORCE:

$(MADE): $(REMAKE)
	@$(SHELL_WORDS)
	one_at_a_time
	why_not() { # why_not PYTHON: empty when a venv can be made from it
	  "$$1" -c 'import sys; print("" if (3, 11) <= sys.version_info < (3, 14) else "is Python %d.%d" % sys.version_info[:2])' 2>/dev/null \
	    || echo "does not start"
	}
	chosen= bare=
	for candidate in $(if $(PYTHON),"$$PYTHON",python3.13 python3.12 python3.11 python3); do
	  command -v "$$candidate" >/dev/null || continue
	  [ -z "$$(why_not "$$candidate")" ] || continue
	  if "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; then chosen=$$candidate; break; fi
	  bare=$${bare:-$$candidate}
	done
	if [ -z "$$chosen" ]; then
	  if [ -n "$$bare" ]; then
	    echo "$$bare cannot make a virtual environment: its venv module is missing. On Debian: apt install python3-venv" >&2
	  elif [ -n "$$PYTHON" ]; then
	    echo "PYTHON=$$PYTHON $$(why_not "$$PYTHON"): Camdock needs Python 3.11, 3.12 or 3.13." >&2
	  else
	    echo "No Python 3.11, 3.12 or 3.13 found. On Debian: apt install python3 python3-venv; or name one: make setup PYTHON=/path/to/python3.12" >&2
	  fi
	  exit 1
	fi
	echo "Making $(VENV) with Python $$("$$chosen" -c 'import platform; print(platform.python_version())') ..."
	rm -rf $(VENV)
	"$$chosen" -m venv $(VENV)
	touch $@

$(RUN): $(MADE)
	@$(SHELL_WORDS)
	one_at_a_time
	rm -f $(VENV)/.run-* $(VENV)/.test-* $(VENV)/.lint-* $(VENV)/.fuzz-*
	echo "Installing NumPy $$(sed -n 's/^numpy==\([^ ]*\).*/\1/p' constraints.txt) ..."
	$(PIP) --only-binary=numpy numpy || broke
	echo "Installing Camdock and the libraries of its back ends ..."
	$(PIP) --editable '.[all]' || broke
	touch $@

$(TEST): $(RUN)
	@$(SHELL_WORDS)
	extra test "what the tests need"
	touch $@

$(LINT): $(RUN)
	@$(SHELL_WORDS)
	extra lint "the linters"
	touch $@

$(FUZZ): $(TEST)
	@$(SHELL_WORDS)
	extra fuzz "the fuzzer"
	touch $@
