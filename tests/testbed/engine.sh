#!/usr/bin/env bash
# A Docker engine for the image tests: uses the one that answers; otherwise installs and starts one, as root, on Debian.
#
#   tests/testbed/engine.sh
#
#   engine      Debian's docker.io, as a background process with a data root of its own where systemd does not run;
#               its log and data are in ~/.cache/camdock/engine ($CAMDOCK_TEST_CACHE/engine)
#   plugins     `docker compose` 2.26 and `docker buildx` 0.13, Debian 13's, for this user alone (~/.docker/cli-plugins),
#               where the engine's own package has none
#
# Never starts a second engine beside one that runs: the two would take each other's network away.
set -euo pipefail

cache=${CAMDOCK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/camdock}
plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
log=$(mktemp)
trap 'rm -rf "$log" "${scratch:-}"' EXIT

say() { printf 'Engine: %s\n' "$*"; }
fail() { printf 'Engine: %s\n' "$*" >&2 && exit 1; }
answers() { docker info >/dev/null 2>&1; }
installs() { # installs PACKAGE...: with apt, quietly unless that fails
  if ! { apt-get update -qq && apt-get install -qq --yes --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install $*"
  fi
}

start_engine() {
  if [ "$(id -u)" != 0 ]; then
    # It tells an engine that this user may not use from one that is stopped or missing.
    "$(dirname "$0")/../../docker/up.sh" --check || true
    fail "no Docker engine answers this user, and installing or starting one takes root"
  fi
  local packages=() daemon='' waited
  command -v docker >/dev/null && command -v dockerd >/dev/null || packages+=(docker.io)
  command -v iptables >/dev/null || packages+=(iptables)
  if [ ${#packages[@]} != 0 ]; then
    command -v apt-get >/dev/null || fail "no Docker engine answers, and there is no apt to install one: ${packages[*]}"
    # Debian 13 has the client in a package of its own.
    if [ -n "$(apt-cache --quiet=2 madison docker-cli 2>/dev/null)" ]; then packages+=(docker-cli); fi
    say "installing ${packages[*]} ..."
    # The package starts its engine at once where systemd runs; elsewhere we do, below.
    installs "${packages[@]}"
    hash -r
  fi
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    mkdir -p "$cache/engine"
    # Under the lock's descriptor nobody else could ever take the lock again: 9 stays here.
    setsid dockerd --data-root "$cache/engine/data" >"$cache/engine/log" 2>&1 </dev/null 9>&- &
    daemon=$!
  fi
  for ((waited = 0; waited < 600; waited++)); do
    answers && return
    [ -z "$daemon" ] || kill -0 "$daemon" 2>/dev/null || break # it has ended: its log says why
    sleep 0.1 # nothing tells when an engine begins to answer
  done
  tail -n 20 "$cache/engine/log" >&2 || true
  docker info >&2 || true
  fail "it was started and does not answer"
}

get_plugins() { # from Debian 13, without a line of it in this machine's APT configuration
  local missing=() name file
  for name in compose buildx; do
    docker "$name" version >/dev/null 2>&1 || missing+=("$name")
  done
  [ ${#missing[@]} != 0 ] || return 0
  command -v apt-get >/dev/null || fail "docker ${missing[*]} is missing: see docs.docker.com/compose/install"
  say "fetching docker ${missing[*]} ..."
  scratch=$(mktemp -d)
  mkdir -p "$scratch"/{lists/partial,archives/partial,parts,trusted}
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n' \
    >"$scratch/sources.list"
  local apart=(-o "Dir::Etc::SourceList=$scratch/sources.list" -o "Dir::Etc::SourceParts=$scratch/parts"
    -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch" -o "APT::Sandbox::User=root")
  (
    cd "$scratch"
    apt-get "${apart[@]}" update -qq && apt-get "${apart[@]}" download -qq "${missing[@]/#/docker-}"
  ) >"$log" 2>&1 || { tail -n 20 "$log" >&2 && fail "docker ${missing[*]} cannot be fetched"; }
  mkdir -p "$plugins"
  for file in "$scratch"/*.deb; do dpkg-deb -x "$file" "$scratch/unpacked"; done
  for name in "${missing[@]}"; do
    file=$(find "$scratch/unpacked" -type f -name "docker-$name" -perm -100 | head -n 1)
    install -m 755 "$file" "$plugins/.docker-$name.new" && mv "$plugins/.docker-$name.new" "$plugins/docker-$name"
    docker "$name" version >/dev/null || fail "docker $name was put into $plugins and does not run"
  done
}

mkdir -p "$cache"
exec 9>"$cache/.engine.lock"
flock 9
answers || start_engine
get_plugins
say "$(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short), $(docker buildx version | cut -d ' ' -f 2)"
