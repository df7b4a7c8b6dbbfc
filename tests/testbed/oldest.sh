#!/usr/bin/env bash
# Runs the door's tests, and a picture that is sent, on the oldest FastAPI and uvicorn that pyproject.toml allows: tests/testbed/oldest.sh PYTHON
# The environment is kept in .cache/oldest and made anew when its pins change.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(realpath --no-symlinks "${1:?the Python to make the environment from}")
place=.cache/oldest
# Ours, but for the pins that oldest.txt sets and what follows from them; and no source of the project's own.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -v -i -E '^(fastapi|uvicorn|starlette|anyio|pydantic|pydantic-core|pydantic_core|pydantic-settings|schemathesis|starlette-testclient)==' \
  constraints.txt >"$pins"
stamp=$place/.made-$(cat tests/testbed/oldest.sh tests/testbed/oldest.txt constraints.txt pyproject.toml <("$python" -V) | cksum | cut -d ' ' -f 1)

if [ ! -f "$stamp" ]; then
  rm -rf "$place"
  mkdir -p .cache
  "$python" -m venv "$place"
  unset PIP_CONSTRAINT
  "$place/bin/python" -m pip install -qq --disable-pip-version-check -c "$pins" numpy
  "$place/bin/python" -m pip install -qq --disable-pip-version-check -c "$pins" -r tests/testbed/oldest.txt -e '.[all]' \
    pytest pytest-timeout psutil httpx hypothesis
  touch "$stamp"
fi
"$place/bin/python" -m pip list 2>/dev/null | grep -E '^(fastapi|starlette|uvicorn|pydantic) ' | tr -s ' ' | paste -sd ';'
exec "$place/bin/python" -m pytest -q -p no:cacheprovider tests/process/test_smoke.py tests/process/test_door.py tests/unit/test_server.py \
  tests/process/test_images.py::test_a_photograph_comes_back_smaller_and_a_camera_can_be_measured \
  tests/process/test_images.py::test_what_is_longer_than_it_may_be_is_refused_before_it_comes
