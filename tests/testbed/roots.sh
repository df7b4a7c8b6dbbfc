#!/usr/bin/env bash
# Root file systems of older Debian releases, for tests that need their Python or apt's compiled packages. Prints the
# folder of each root asked for, making it first where it is not there yet.
#
#   tests/testbed/roots.sh bullseye bookworm trixie   as root; needs mmdebstrap (packages.sh mmdebstrap)
#
#   bullseye   CPython 3.9 with venv
#   trixie     CPython 3.13, what the service image is made from
#   bookworm   CPython 3.11 with venv; apt's NumPy 1.24 and, compiled for it, python3-bottleneck and python3-h5py
#
# They are kept in ~/.cache/camdock/roots ($CAMDOCK_TEST_CACHE/roots), named after what they were made from, and are
# there whole or not at all: a root is made beside its place and renamed. Half-made ones of a killed run are removed.
# CAMDOCK_TEST_MIRROR: another Debian mirror.
set -euo pipefail

cache=${CAMDOCK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/camdock}/roots
mirror=${CAMDOCK_TEST_MIRROR:-} # empty: Debian's own, as mmdebstrap knows it

contents() { # contents NAME: the packages beyond the essential ones, joined by commas
  case $1 in
    trixie) echo python3,python3-venv,ca-certificates ;;
    bullseye) echo python3,python3-venv,ca-certificates ;;
    bookworm) echo python3,python3-venv,ca-certificates,python3-numpy,python3-bottleneck,python3-h5py ;;
    *) echo "roots.sh: no root is called '$1'; it knows bullseye, bookworm and trixie" >&2 && return 2 ;;
  esac
}

if [ $# = 0 ]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
for name in "$@"; do contents "$name" >/dev/null; done

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # a second run waits for the first one's root instead of making its own

for name in "$@"; do
  packages=$(contents "$name")
  recipe="1 $name $packages"
  place=$cache/$name-$(printf '%s' "$recipe" | cksum | cut -d ' ' -f 1)
  if [ ! -d "$place" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
      echo "roots.sh: $name cannot be made: it takes root and mmdebstrap (apt install mmdebstrap)" >&2
      exit 1
    fi
    rm -rf --one-file-system "$cache/.half-$name" "$cache/$name"-*
    began=$EPOCHSECONDS
    log=$(mktemp)
    # Documentation and translations are two thirds of such a root and no test reads them.
    # In a session of its own: see bases.sh.
    if ! setsid --wait mmdebstrap --quiet --variant=minbase --include="$packages" \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' \
      "$name" "$cache/.half-$name" ${mirror:+"$mirror"} >"$log" 2>&1; then
      echo "roots.sh: mmdebstrap could not make $name${mirror:+ from $mirror}:" >&2
      tail -n 20 "$log" >&2
      rm -rf --one-file-system "$cache/.half-$name" "$log"
      exit 1
    fi
    rm -f "$log"
    mv "$cache/.half-$name" "$place"
    echo "roots.sh: $name made in $((EPOCHSECONDS - began)) s" >&2
  fi
  echo "$place"
done
