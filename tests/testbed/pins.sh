#!/usr/bin/env bash
# Proves that constraints.txt installs from wheels alone on every Python and machine we support, with NumPy where it
# says; that it pins everything the project can ask for; and that no line in it is left over. Installs nothing.
#
#   tests/testbed/pins.sh [PYTHON]      PYTHON has pip; default .venv/bin/python
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pip chooses wheels for the target it is told, but evaluates environment markers for the machine it runs on
# (pip issue 11664). So the markers' environment is replaced before pip loads anything else, and the report that pip
# writes, which carries that environment, is checked for it.
cat >"$work/resolve.py" <<'PY'
import sys

from pip._vendor.packaging import markers

version, machine, report, requirements = sys.argv[1:]
environment = markers.default_environment() | {
    "python_version": version,
    "python_full_version": f"{version}.0",
    "implementation_version": f"{version}.0",
    "platform_machine": machine,
}
markers.default_environment = lambda: dict(environment)

from pip._internal.cli.main import main  # noqa: E402  after the markers

tag = "cp" + version.replace(".", "")
platforms = [f"manylinux{level}_{machine}" for level in ("2014", "_2_17", "_2_24", "_2_27", "_2_28")]
sys.exit(
    main(
        ["install", "-qq", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", report + ".unused"]
        + ["--implementation", "cp", "--python-version", version]
        + [word for abi in (tag, "abi3", "none") for word in ("--abi", abi)]
        + [word for platform in platforms for word in ("--platform", platform)]
        + ["--report", report, "-c", "constraints.txt", "-r", requirements]
    )
)
PY

cat >"$work/compare.py" <<'PY'
import json
import pathlib
import re
import sys
import tomllib


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in pathlib.Path("constraints.txt").read_text().splitlines())
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines if line}


def requirements() -> str:
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    wanted = project["dependencies"] + extras
    return "\n".join(line for line in wanted if not line.startswith(project["name"] + "["))


def found(work: pathlib.Path, version: str, machine: str) -> dict[str, str]:
    report = json.loads((work / f"{version}-{machine}.json").read_text())
    environment = report["environment"]
    if (environment["python_version"], environment["platform_machine"]) != (version, machine):
        sys.exit(f"pip {report['pip_version']} evaluated the markers for another machine: fix resolve.py in pins.sh")
    return {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}


match sys.argv[1:]:
    case ["requirements"]:
        print(requirements())
    case ["check", work, version, machine]:
        got, pinned = found(pathlib.Path(work), version, machine), pins()
        if next(iter(pinned)) != "numpy":
            sys.exit("constraints.txt: NumPy is not the first pin")
        wrong = sorted(f"{name}=={got[name]}" for name in got if pinned.get(name) != got[name])
        if wrong:
            sys.exit("not pinned in constraints.txt: " + " ".join(wrong))
        print(f"{len(got)} packages, NumPy {got['numpy']}")
    case ["left-over", work]:
        reports = pathlib.Path(work).glob("*.json")
        used = {name for report in reports for name in found(report.parent, *report.stem.split("-"))}
        if unused := sorted(pins().keys() - used):
            sys.exit("in constraints.txt, and nothing asks for it: " + " ".join(unused))
PY

"$python" "$work/compare.py" requirements >"$work/requirements.txt"

failed=0
for version in 3.11 3.12 3.13; do
  running=()
  for machine in x86_64 aarch64; do
    "$python" "$work/resolve.py" "$version" "$machine" "$work/$version-$machine.json" "$work/requirements.txt" \
      >"$work/$version-$machine.log" 2>&1 &
    running+=("$machine:$!")
  done
  for entry in "${running[@]}"; do
    machine=${entry%%:*}
    name="CPython $version $machine"
    if wait "${entry##*:}" && said=$("$python" "$work/compare.py" check "$work" "$version" "$machine" 2>&1); then
      printf '  ok      %-22s %s\n' "$name" "$said"
    else
      printf '  FAILED  %-22s %s\n' "$name" "${said:-}"
      sed 's/^/          /' "$work/$version-$machine.log"
      failed=1
    fi
    said=
  done
done
[ "$failed" = 0 ] && "$python" "$work/compare.py" left-over "$work"
exit "$failed"
