#!/usr/bin/env bash
# `make up`: docker compose up in the foreground, once it is certain that there is an engine and Compose v2. Where
# something is missing it says what to install on this system, and changes nothing.
#
#   docker/up.sh [OPTION of docker compose up]...      docker/up.sh --check: only look
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { # fail WORDS COMMAND...: what is wrong, then what to type, line by line
  printf 'make up: %s\n' "$1" >&2
  shift
  if [ $# != 0 ]; then printf '    %s\n' "$@" >&2; fi
  exit 1
}

system() { # what /etc/os-release calls this system: debian-12, raspbian-12, ubuntu-24.04 ...
  local ID='' VERSION_ID=''
  # shellcheck source=/dev/null
  if [ -r /etc/os-release ]; then . /etc/os-release; fi
  # Raspberry Pi OS of 64 bits calls itself Debian, and takes Debian's packages.
  printf '%s-%s' "${ID:-unknown}" "${VERSION_ID:-unknown}"
}

install_lines() { # into ${install[@]}: the commands that give this system an engine and Compose v2
  case $(system) in
    debian-12 | raspbian-12 | debian-11 | raspbian-11)
      install=(
        'curl -fsSL https://get.docker.com | sudo sh'
        "(Docker's own packages, since this system has only Compose v1; by hand: https://docs.docker.com/engine/install)"
        "or, as root: make testbed  (the system's engine, and Debian 13's docker compose for this user alone)"
      )
      ;;
    debian-* | raspbian-*) install=('sudo apt install docker.io docker-cli docker-compose docker-buildx') ;;
    ubuntu-*) install=('sudo apt install docker.io docker-compose-v2 docker-buildx') ;;
    fedora-*) install=('sudo dnf install moby-engine docker-cli docker-compose docker-buildx') ;;
    arch-*) install=('sudo pacman -S docker docker-compose docker-buildx') ;;
    alpine-*) install=('sudo apk add docker docker-cli-compose docker-cli-buildx') ;;
    *) install=('see https://docs.docker.com/engine/install and https://docs.docker.com/compose/install') ;;
  esac
}

check() {
  local install said version where=${DOCKER_HOST:-}
  install_lines
  command -v docker >/dev/null || fail 'Docker is not installed. On this system:' "${install[@]}"
  if ! said=$(docker info --format '{{.ServerVersion}}' 2>&1); then
    case $said in
      *'permission denied'*)
        fail "the Docker engine runs, and $(id -un 2>/dev/null || id -u) may not use it. Join its group, then log in anew:" \
          "sudo usermod -aG docker $(id -un 2>/dev/null || printf "\$USER")" \
          '(whoever is in that group can become root; rootless Docker is the other way: docs.docker.com/go/rootless)'
        ;;
      *'Cannot connect'* | *'failed to connect'* | *'error during connect'* | *'Is the docker daemon running'*)
        if [ -n "$where" ]; then
          fail "no Docker engine answers at DOCKER_HOST=$where. Start that one, or use this machine's:" 'unset DOCKER_HOST'
        elif [ -n "$(PATH=$PATH:/usr/sbin:/sbin command -v dockerd)" ]; then
          fail 'Docker is installed, and its engine does not run. Start it:' 'sudo systemctl enable --now docker'
        else
          fail 'the docker command is here, and no engine. On this system:' "${install[@]}"
        fi
        ;;
      *) fail 'the Docker engine does not answer as it should. It says:' "${said##*$'\n'}" ;;
    esac
  fi
  if ! version=$(docker compose version --short 2>/dev/null); then
    if command -v docker-compose >/dev/null && [[ $(docker-compose version --short 2>/dev/null) == 1.* ]]; then
      fail 'there is only Compose v1 (docker-compose), which cannot read compose.yaml. On this system:' "${install[@]}"
    fi
    fail 'docker compose is not installed. On this system:' "${install[@]}"
  fi
  version=${version#v}
  if [ "${version%%.*}" -lt 2 ] 2>/dev/null; then
    fail "docker compose is version $version, and 2 or later is needed. On this system:" "${install[@]}"
  fi
  printf 'Engine %s, compose %s\n' "$said" "$version"
}

tell_address() { # at each event, asks whether the container is well by now; then says where the pictures are
  local id published scheme
  while read -r id; do
    if [ "$(docker inspect --format '{{.State.Health.Status}}' "$id" 2>/dev/null)" = healthy ]; then
      published=$(docker port "$id" 8000/tcp | head -n 1)
      scheme=http
      case $(docker inspect --format '{{.Config.Env}}' "$id") in *CAMDOCK_TLS_CERT=/*) scheme=https ;; esac
      printf '\n== Pictures on %s://%s  (Ctrl-C ends it; make down removes the container)\n\n' \
        "$scheme" "${published/#0.0.0.0:/localhost:}"
      return
    fi
  done
}

check
if [ "${1:-}" = --check ]; then exit 0; fi
# Loopback is what compose.yaml has by itself; said aloud, it would count as an address of the network.
case ${CAMDOCK_HOST:-} in 127.0.0.1 | localhost) unset CAMDOCK_HOST ;; esac
# `attach` for a container that was well before we came: its health does not change any more.
exec {events}< <(exec docker events --filter type=container --filter event=health_status --filter event=attach \
  --filter "label=com.docker.compose.project.working_dir=$PWD" --format '{{.ID}}')
listener=$!
tell_address <&"$events" &
teller=$!
trap 'kill "$listener" "$teller" 2>/dev/null || true' EXIT
docker compose up --build "$@"
