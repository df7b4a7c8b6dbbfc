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
# .lint-<the pins>, .fuzz-<the pins>, .deploy-<the pins>. A stamp is written last, so an interrupted step is done again; another folder or other pins ask
# for stamps that are not there.

VENV ?= .venv
PY := $(VENV)/bin/python
export PYTHON ?=

version_of = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PLACE := $(shell printf '%s' '$(CURDIR)' | cksum | cut -d ' ' -f 1)
PINS := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
# Every extra that constraints.txt pins. `picamera2` has pins of its own: two of its libraries have no wheel.
PINNED := pyproject.toml[all,client,deploy,fuzz,image,lint,test,vision]
MADE := $(VENV)/.made-$(PLACE)
RUN := $(VENV)/.run-$(PINS)
TEST := $(VENV)/.test-$(PINS)
LINT := $(VENV)/.lint-$(PINS)
FUZZ := $(VENV)/.fuzz-$(PINS)
DEPLOY := $(VENV)/.deploy-$(PINS)

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

# What pytest remembers, and where `again` reads what failed.
CACHE ?= .pytest_cache

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
  local command=() more=() status=0 count cache=$(CACHE)/v/cache/lastfailed report=$(CACHE)/again.xml
  while [ $$# -gt 0 ] && [ "$$1" != -- ]; do command+=("$$1"); shift; done
  if [ $$# -gt 0 ]; then shift; more=("$$@"); fi
  command+=(-o cache_dir=$(CACHE))
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
# beside NAME COMMAND...: a part of its own process group, politer than what runs meanwhile. `joined` waits for all of
# them, prints what each has said and remembers a failure. For what measures no time; a pytest gets a CACHE of its own. It
# ends with this shell.
aside=()
beside() {
  local log=$(VENV)/beside-$$(($${#aside[@]} + 1)).log
  printf '== %s: beside what follows\n' "$$1"
  set -m
  { renice -n 10 -p "$$BASHPID" >/dev/null 2>&1 || true; failed=0; part "$$@"; exit "$$failed"; } >"$$log" 2>&1 </dev/null &
  set +m
  aside+=("$$!")
  trap 'kill -- "$${aside[@]/#/-}" 2>/dev/null || true' EXIT
}
joined() {
  local number
  for number in "$${!aside[@]}"; do
    wait "$${aside[number]}" || failed=1
    cat "$(VENV)/beside-$$((number + 1)).log"
  done
  aside=()
  trap - EXIT
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
# The test bed is for machines that have no engine or no registry, and for CI: elsewhere what is there is used.
engine_and_bases() {
  local base
  docker info >/dev/null 2>&1 && [ "$${CI:-}" != true ] || tests/testbed/engine.sh
  for base in trixie bookworm; do
    docker image inspect "debian:$$base-slim" >/dev/null 2>&1 || docker pull --quiet "debian:$$base-slim" 2>/dev/null \
      || { tests/testbed/packages.sh mmdebstrap && tests/testbed/bases.sh "$$base"; }
  done
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
	  "  make deploy HOST=pi@camera.local                     to a Raspberry Pi, over SSH" \
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
$(2): export CAMDOCK_$(1) = $$(value $(1))
endif
endef
$(foreach name,SOURCE SOURCES HOST PORT,$(eval $(call PASSED,$(name),run up deploy rollback restore doctor)))
$(foreach name,MODE IMAGE YES,$(eval $(call PASSED,$(name),deploy rollback restore)))
$(eval $(call PASSED,TOKEN,run up doctor))

.PHONY: run
run: $(RUN) ## Pictures on http://localhost:8000; SOURCE= HOST= PORT= TOKEN= set it up
	@exec $(PY) -m camdock

.PHONY: up
up: ## The same in a container (docker compose up); says what to install; HOST= PORT= TOKEN= SOURCE= as above
	@exec docker/up.sh $(ARGS)

.PHONY: down
down: ## Remove that container and its network; settings and captures stay
	@docker compose down $(ARGS)

.PHONY: deploy
deploy: $(DEPLOY) ## To one machine over SSH, HOST=pi@camera.local: explains, asks once; MODE= SOURCE= PORT= IMAGE= YES=1
	@exec $(PY) ansible/one.py $(ARGS)

.PHONY: rollback restore
rollback: $(DEPLOY) ## One machine back to the release before; HOST= YES=1
	@exec $(PY) ansible/one.py --play rollback $(ARGS)

restore: $(DEPLOY) ## The apt packages that were removed there, put back; HOST= YES=1
	@exec $(PY) ansible/one.py --play restore $(ARGS)

.PHONY: devices
devices: ## What a container needs for this machine's cameras: make -s devices > compose.override.yaml; ARGS=--run
	@cd service && exec python3 -m camdock devices $(ARGS)

.PHONY: doctor
doctor: ## What is wrong on this machine, in words, and what mends it; SOURCE= as above, ARGS=--json
	@if [ -x $(PY) ]; then exec $(PY) -m camdock doctor $(ARGS); fi
	cd service && exec python3 -m camdock doctor $(ARGS)

##@ Prove

# Most process tests wait for something: more of them at once than there are cores, but each worker imports everything.
# How tests are handed out: tests/tools/together.py. A worker that dies is not started again: xdist 3.8 would wait for ever
# for the one that takes its place.
WORKERS ?= 5
# What to look at when it takes too long.
LONGEST := --durations 20 --durations-min 10

.PHONY: test
test: $(TEST) ## Unit and process tests; ARGS= goes to pytest
	@$(SHELL_WORDS)
	part "test bed" tests/testbed/packages.sh
	[ "$$failed" = 0 ] || exit 1
	side_by_side() { again $(PY) -m pytest -m "not slow" $(ARGS) -- -n $(WORKERS) --max-worker-restart 0; }
	part "tests on Python $$($(PY) -c 'import platform; print(platform.python_version())')" side_by_side
	exit "$$failed"

.PHONY: lint
lint: $(LINT) ## Format, code, types, layers, shell, YAML, Dockerfiles, workflows
	@$(SHELL_WORDS)
	files() { git ls-files --cached --others --exclude-standard "$$@"; }
	mapfile -t scripts < <(files '*.sh' .ci/run)
	mapfile -t yaml < <(files '*.yml' '*.yaml')
	mapfile -t dockerfiles < <(files '*Dockerfile' '*Dockerfile.*' ':!*.dockerignore')
	mapfile -t workflows < <(files '.github/workflows/*')
	# A linter that is a program in a wheel: there are wheels for x86-64, and for some of them for aarch64.
	program() { # program NAME: its path, the environment's or this machine's; nothing where there is neither
	  if [ -x "$(VENV)/bin/$$1" ]; then echo "$(VENV)/bin/$$1"; else command -v "$$1" || true; fi
	}
	shellcheck=$$(program shellcheck) hadolint=$$(program hadolint) actionlint=$$(program actionlint)
	lacking() { # lacking TITLE HOW: the program of that part is not here; under CI=true that is a failure
	  skipped "$$1" "no wheel for this machine: $$2"
	  [ "$${CI:-}" != true ] || failed=1
	}
	# It finds ansible-playbook on PATH; what it lints is named in .ansible-lint.
	ansible_lint() { env PATH="$(abspath $(VENV)/bin):$$PATH" $(VENV)/bin/ansible-lint --offline --strict -q; }
	part "format (ruff format)" $(VENV)/bin/ruff format --quiet --check .
	part "code (ruff check)" $(VENV)/bin/ruff check --quiet .
	part "types (mypy)" $(PY) -m mypy --no-error-summary
	part "layers (lint-imports)" $(VENV)/bin/lint-imports
	if [ -n "$$shellcheck" ]; then part "shell (shellcheck)" "$$shellcheck" "$${scripts[@]}"
	else lacking "shell (shellcheck)" "apt install shellcheck"
	fi
	part "YAML (yamllint)" $(VENV)/bin/yamllint --strict "$${yaml[@]}"
	if [ -d ansible ]; then part "Ansible (ansible-lint)" ansible_lint; fi
	if [ -n "$$hadolint" ]; then part "Dockerfiles (hadolint)" "$$hadolint" --no-color "$${dockerfiles[@]}"
	else lacking "Dockerfiles (hadolint)" "put hadolint on PATH"
	fi
	if [ -n "$$actionlint" ]; then part "workflows (actionlint)" "$$actionlint" -shellcheck "$$shellcheck" -pyflakes "" "$${workflows[@]}"
	else lacking "workflows (actionlint)" "put actionlint on PATH"
	fi
	exit "$$failed"

.PHONY: plan
plan: $(RUN) ## Judge the four sets of pins, for every Python and machine they are for
	@$(SHELL_WORDS)
	plan() { $(PY) -m camdock.abi plan "$$@"; }
	part "pins: constraints.txt" plan constraints.txt -r '$(PINNED)'
	part "pins: picamera2" plan docker/pins/picamera2.txt -r docker/pins/picamera2.in -r 'pyproject.toml[all]' --python 3.13
	part "pins: picamera2, newest" plan docker/pins/picamera2-newest.txt -r docker/pins/picamera2-newest.in -r 'pyproject.toml[all]' --python 3.13
	part "pins: NumPy 1.x" plan docker/pins/numpy1.txt -r docker/pins/numpy1.in -r 'pyproject.toml[all]' --python 3.11
	exit "$$failed"

.PHONY: fmt
fmt: $(LINT) ## Put the format and the imports right, write the roles' READMEs
	@$(VENV)/bin/ruff check --quiet --select I --fix .
	$(VENV)/bin/ruff format --quiet .
	$(PY) ansible/describe.py

IMAGES ?= current optimized numpy1 picamera2
REPOSITORY ?= camdock
.PHONY: image
image: $(TEST) ## Build all images and prove them; IMAGES="current optimized" chooses, REPOSITORY= names, ARGS= goes to pytest
	@$(SHELL_WORDS)
	export DOCKER_BUILDKIT=1
	engine_and_bases
	revision=$$(git rev-parse HEAD)
	[ -z "$$(git status --porcelain)" ] || revision+=-changed
	build() { # build NAME: the image of that name, from its Dockerfile and its pins
	  local file=Dockerfile pins=current
	  case $$1 in
	    current) ;;
	    optimized) file=Dockerfile.optimized ;;
	    numpy1 | picamera2) pins=$$1 ;;
	    *) echo "There is no image $$1; IMAGES are some of: current optimized numpy1 picamera2" >&2; return 1 ;;
	  esac
	  docker build --quiet --file "$$file" --build-arg "PINS=$$pins" --build-arg "REVISION=$$revision" \
	    --tag "$(REPOSITORY):$$1" . >"$(VENV)/image-$$1.log" 2>&1 || { cat "$(VENV)/image-$$1.log" >&2; return 1; }
	}
	for name in $(IMAGES); do part "image $$name" build "$$name"; done
	[ "$$failed" = 0 ] || exit 1
	docker images --format '{{.Repository}}:{{.Tag}} {{.Size}}' "$(REPOSITORY)" | sort
	export CAMDOCK_TEST_IMAGES="$(IMAGES)" CAMDOCK_TEST_REPOSITORY="$(REPOSITORY)" CAMDOCK_TEST_REVISION="$$revision"
	# Most of them wait for an engine: two files at once take two thirds of the time.
	part "tests of the images" again $(PY) -m pytest tests/image $(LONGEST) $(ARGS) -- -n 2 --dist loadfile
	exit "$$failed"

DEVICES ?= tests/device
.PHONY: device
device: $(TEST) ## The image with a real V4L2 driver, plugged and unplugged, in a virtual machine
	@$(SHELL_WORDS)
	part "test bed" tests/testbed/packages.sh mmdebstrap qemu-system-x86 e2fsprogs openssh-client
	docker info >/dev/null || exit 1
	docker image inspect camdock:current >/dev/null 2>&1 || { echo "There is no image camdock:current: make image IMAGES=current" >&2; exit 1; }
	part "devices" again $(PY) -m pytest $(DEVICES) $(ARGS)
	exit "$$failed"

# Three at once: a play that is waited for leaves much time to others.
HOSTS ?= tests/host --ignore tests/host/vm
.PHONY: host
host: $(TEST) $(DEPLOY) ## Deploy to hosts in containers, in both modes, and what can go wrong; HOSTS= some files, ARGS= goes to pytest
	@$(SHELL_WORDS)
	export DOCKER_BUILDKIT=1
	engine_and_bases
	part "test bed" tests/testbed/packages.sh openssh-client
	docker image inspect camdock:current >/dev/null 2>&1 || { echo "There is no image camdock:current: make image IMAGES=current" >&2; exit 1; }
	part "hosts" again $(PY) -m pytest $(HOSTS) $(LONGEST) $(ARGS) -- -n 3 --dist loadfile
	exit "$$failed"

.PHONY: host-vm
host-vm: $(TEST) $(DEPLOY) ## Deploy to a virtual machine with a kernel, sshd and a camera driver of its own
	@$(SHELL_WORDS)
	export DOCKER_BUILDKIT=1
	engine_and_bases  # what is installed on the machine is built beside it
	part "test bed" tests/testbed/packages.sh mmdebstrap qemu-system-x86 e2fsprogs openssh-client
	part "virtual machine" again $(PY) -m pytest tests/host/vm $(ARGS)
	exit "$$failed"

.PHONY: figures
figures: $(TEST) ## How large the images are and how quickly they start, beside a plain pip install
	@exec $(PY) -m tests.image.figures $(ARGS)

.PHONY: bench
bench: $(TEST) ## Speed, peers beside us, on a quiet machine; ARGS=--short
	@tests/testbed/packages.sh
	exec $(PY) -m tests.bench $(ARGS)

.PHONY: verify
verify: $(TEST) $(LINT) $(FUZZ) $(DEPLOY) ## What `make test` leaves out: lint, pins, slow tests, the page, other versions, images, devices, hosts
	@$(SHELL_WORDS)
	part "lint" $(AGAIN) lint
	part "test bed" tests/testbed/packages.sh chromium clang e2fsprogs ffmpeg g++ gcc-aarch64-linux-gnu \
	  gstreamer1.0-plugins-good gstreamer1.0-tools libc6-dev-arm64-cross mmdebstrap openssh-client prometheus qemu-system-x86
	part "bench" $(AGAIN) bench ARGS=--short
	# The oldest and the newest; the workflows test those between, too.
	for version in 3.11 3.13; do
	  [ "$$version" != "$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" ] || continue
	  other=
	  for candidate in "python$$version" "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version".*/bin/python; do
	    if "$$candidate" -c 'import ensurepip' 2>/dev/null; then other=$$candidate; fi
	  done
	  if [ -n "$$other" ]; then part "tests, Python $$version" $(AGAIN) test ARGS= VENV=".venv-$$version" PYTHON="$$other"
	  else skipped "tests, Python $$version" "not on this machine"
	  fi
	done
	part "page" again $(PY) -m pytest tests/page
	part "oldest FastAPI and uvicorn" tests/testbed/oldest.sh $(PY)
	part "slow tests" again $(PY) -m pytest tests/process tests/unit tests/roles $(LONGEST) -m "slow or hypothesis" -- -n 3 --max-worker-restart 0
	# From here on a deadline is half a minute and more. Images wait for their engine and pip for an index; the devices
	# take a third of both cores, a machine that is deployed to takes one.
	beside "pins" $(AGAIN) plan
	part "images" $(AGAIN) image ARGS=
	joined
	part "slow tests of camdock abi" again $(PY) -m pytest tests/abi -m slow -- -n 2 --dist loadfile
	beside "fuzz" $(PY) -m tests.abi.fuzz --seconds 60
	beside "virtual machine" $(AGAIN) host-vm ARGS= CACHE=.pytest_cache-vm
	part "devices" $(AGAIN) device ARGS=
	joined
	part "hosts" $(AGAIN) host ARGS=
	exit "$$failed"

.PHONY: upgrade
upgrade: $(RUN) ## Move the pins to the newest clean set, or change nothing; ARGS="--dry-run", "--only NAME", "--hold NAME"
	@exec $(PY) -m camdock.abi upgrade constraints.txt -r '$(PINNED)' $(ARGS)

##@ The machine

.PHONY: testbed
testbed: ## What the tests need: compilers, chromium, QEMU ..., a Docker engine, base images (root installs it)
	@tests/testbed/packages.sh chromium clang e2fsprogs ffmpeg fuse3 g++ gcc-aarch64-linux-gnu \
	  gstreamer1.0-plugins-good gstreamer1.0-tools libc6-dev-arm64-cross mmdebstrap openssh-client prometheus qemu-system-x86
	tests/testbed/engine.sh
	tests/testbed/bases.sh trixie bookworm

.PHONY: clean
clean: ## Remove what make made: environments, caches
	@rm -rf .venv .venv-3.* .cache .pytest_cache* .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist service/*.egg-info
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
	rm -f $(VENV)/.run-* $(VENV)/.test-* $(VENV)/.lint-* $(VENV)/.fuzz-* $(VENV)/.deploy-*
	echo "Installing NumPy $$(sed -n 's/^numpy==\([^ ]*\).*/\1/p' constraints.txt) ..."
	$(PIP) --only-binary=numpy numpy || broke
	echo "Installing Camdock and the libraries of its back ends ..."
	$(PIP) --editable '.[all]' || broke
	touch $@

$(TEST): $(RUN)
	@$(SHELL_WORDS)
	extra test "what the tests need"
	touch $@

$(LINT): $(DEPLOY)
	@$(SHELL_WORDS)
	extra lint "the linters"
	extra vision "Google's client, whose types are checked against"
	touch $@

$(DEPLOY): $(RUN)
	@$(SHELL_WORDS)
	extra deploy "Ansible"
	touch $@

$(FUZZ): $(TEST)
	@$(SHELL_WORDS)
	extra fuzz "the fuzzer"
	touch $@
