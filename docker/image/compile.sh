#!/bin/sh
# Makes the wheels of what a set of pins has no wheel for: compile.sh PINS FOLDER
#
# PINS.in names those packages, each with its reason, as pip does: `--no-binary NAME`. They are C that no NumPy breaks;
# their versions are those of PINS.txt. A set that names none, or has no such file, leaves the folder empty.
set -eu
pins=$1
folder=$2
mkdir -p "$folder"
names=$(sed -n 's/^--no-binary *\([^ #]*\).*/\1/p' "$pins.in" 2>/dev/null || true)
[ -n "$names" ] || exit 0

apt-get update
apt-get install --yes --no-install-recommends gcc libc6-dev libcap-dev python3-dev
# No symbols for debuggers: they would carry the name of a folder that is another one in every build. The archive's dates
# are the ones that zip begins with.
export CFLAGS=-g0 SOURCE_DATE_EPOCH=946684800
for name in $names; do
  /tools/bin/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --no-binary "$name" \
    --constraint "$pins.txt" --wheel-dir "$folder" "$name"
done
