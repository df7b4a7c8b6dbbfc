#!/usr/bin/env python3
"""Deploys Camdock to one machine, for who has never seen Ansible: looks, explains what it will do, asks once, does it.

    make deploy HOST=pi@camera.local            python ansible/one.py --help
    make rollback HOST=pi@camera.local          back to the release before
    make restore HOST=pi@camera.local           apt's packages that were removed for it, put back

The plays do the work (deploy.yml); whoever has several machines writes an inventory and calls them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEVICES = HERE.parent / "service" / "camdock" / "devices.py"
MODES = ("native", "container")
PLAYS = {"deploy": "deploy.yml", "rollback": "rollback.yml", "restore": "restore.yml"}
LOCAL = ("localhost", "127.0.0.1", "::1")
EXIT_USAGE = 2
# Options of ansible-playbook that say where sudo's password comes from.
PASSWORDS = ("-K", "--ask-become-pass", "--become-pass")
# Asked in one breath; each line is one answer, and an empty one means: there is none.
QUESTIONS = {
    "system": '. /etc/os-release; echo "$PRETTY_NAME"',
    "machine": "uname -m",
    "board": r"tr -d '\0' </proc/device-tree/model 2>/dev/null; echo",
    "python": "python3 -c 'import platform; print(platform.python_version())' 2>/dev/null || echo",
    "user": 'echo "${SUDO_USER:-$(id -un)}"',
    # -k: what sudo remembers for a terminal does not count for Ansible, which has none.
    "sudo": 'if [ "$(id -u)" = 0 ]; then echo root; elif ! command -v sudo >/dev/null; then echo none; '
    "elif sudo -k -n true </dev/null 2>/dev/null; then echo free; else echo asks; fi",
    "release": 'basename "$(readlink /opt/camdock/current || true)"',
    "packages": "dpkg-query --show --showformat='${db:Status-Status}=${Package} ' 2>/dev/null; echo",
}
HINTS = {  # what ssh says: what to do about it
    "Permission denied": "let your key in first (it asks for the password once): ssh-copy-id {host}",
    "Host key verification failed": "say once that you know this machine: ssh {host}",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "was the machine set up anew? Forget its old key: ssh-keygen -R {known}",
    "Could not resolve hostname": "is the name right, and is the machine on? Its IP address will do as well",
    "Connection refused": "turn SSH on there (raspi-config, Interface Options), or give its port: HOST=user@name:port",
    "timed out": "is it on, and in this network?",
    "No route to host": "is it on, and in this network?",
}


class CannotGoOn(Exception):
    """Nothing was changed; the message says why and what to do."""


@dataclass
class Machine:
    """The machine that is deployed to.

    given       as it was named: user@name:port, or localhost
    ssh_config  a configuration for ssh instead of the person's own
    """

    given: str
    ssh_config: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    devices: dict[str, Any] = field(default_factory=dict)

    @property
    def _login(self) -> tuple[str, str, str]:
        user, _, rest = self.given.rpartition("@")
        if rest.startswith("["):  # an IPv6 address
            name, _, port = rest[1:].partition("]")
            return user, name, port.removeprefix(":")
        name, _, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
        return user, name, port

    @property
    def name(self) -> str:
        """Its name alone."""
        return self._login[1]

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, asked without SSH."""
        user, name, port = self._login
        return name in LOCAL and not user and not port

    @property
    def login(self) -> str:
        """What ssh is called with to get there, as a word for a shell."""
        return shlex.quote(f"ssh://{self.given}" if self._login[2] else self.given)

    @property
    def known_as(self) -> str:
        """What it is called among the keys that ssh knows, as a word for a shell."""
        _, name, port = self._login
        return shlex.quote(f"[{name}]:{port}" if port else name)

    def check(self) -> None:
        """Raises CannotGoOn when it is not named in a way that can be meant."""
        user, name, port = self._login
        # What begins with a dash would be an option of ssh; brackets and braces mean something to Ansible.
        if not re.fullmatch(r"[\w.:%][\w.:%-]*", name) or not re.fullmatch(r"|[^-\s{}][^\s{}]*", user):
            raise CannotGoOn(f"HOST={self.given} names no machine. For example: HOST=pi@camera.local")
        if port and not (port.isdigit() and 0 < int(port) < 65536):
            raise CannotGoOn(f"HOST={self.given}: {port} is no port; 22 is what SSH listens on by itself")

    def words(self, command: str) -> list[str]:
        """The command line that runs a line of shell there."""
        if self.is_local:
            return ["sh", "-c", command]
        user, name, port = self._login
        own = ["-F", self.ssh_config] if self.ssh_config else []
        return [
            "ssh", *own, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
            *(["-p", port] if port else []), *(["-l", user] if user else []), "--", name, command,
        ]  # fmt: skip

    def _run(self, command: str, given: str) -> str:
        done = subprocess.run(
            self.words(command), input=given, text=True, capture_output=True, check=False, errors="replace"
        )
        if done.returncode == 0:
            return done.stdout
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        hint = next((hint for words, hint in HINTS.items() if words in done.stderr), "")
        if done.returncode != 255 and not hint:
            raise CannotGoOn(f"{self.given} could not be looked at: {said[-1]}")
        told = f"\n  {hint.format(host=self.login, known=self.known_as)}" if hint else ""
        raise CannotGoOn(f"{self.given} does not let us in: {said[-1]}{told}")

    def look(self) -> None:
        """Find out what there is; changes nothing. Raises CannotGoOn."""
        # Each answer with its name: what a login's own files print besides is nobody's answer.
        asked = "\n".join(f"printf '%s\\n' \"camdock:{name}=$({question})\"" for name, question in QUESTIONS.items())
        lines = self._run("sh -s", asked).splitlines()
        told = (line.removeprefix("camdock:").partition("=") for line in lines if line.startswith("camdock:"))
        self.answers = dict.fromkeys(QUESTIONS, "") | {name: answer.strip() for name, _, answer in told}
        if not self.answers.get("python"):
            raise CannotGoOn(f"{self.given} has no python3, which the deployment needs there: sudo apt install python3")
        self.devices = json.loads(self._run("python3 - --json", DEVICES.read_text("utf-8")))

    def inventory(self) -> dict[str, Any]:
        """It, as Ansible's inventory."""
        user, name, port = self._login
        about: dict[str, Any] = {"ansible_host": name}
        if self.is_local:
            about = {"ansible_connection": "local"}
        elif self.ssh_config:
            about["ansible_ssh_common_args"] = f"-F {shlex.quote(self.ssh_config)}"
        if user and not self.is_local:
            about["ansible_user"] = user
        if port:
            about["ansible_port"] = int(port)
        if self.answers["sudo"] == "root":
            about["ansible_become"] = False  # a Debian whose root logs in need not have sudo
        return {"cameras": {"hosts": {name: about}}}


def in_the_way(machine: Machine) -> list[str]:
    """The installed packages that the role purge would remove."""
    import yaml

    listed = yaml.safe_load((HERE / "roles" / "purge" / "vars" / "main.yml").read_text("utf-8"))["purge_packages"]
    installed = {one.removeprefix("installed=") for one in machine.answers.get("packages", "").split()}
    return sorted({one["name"] for one in listed} & installed)


def cameras(machine: Machine) -> str:
    """Which cameras it has, in words."""
    nodes = [one for one in machine.devices["nodes"] if one["kind"] == "video" and one["captures"] is not False]
    if not nodes:
        return "none found; a test picture is shown until one is plugged in"
    return ", ".join(f"{one['name'] or 'a camera'} ({one['path']})" for one in nodes[:4])


def found(machine: Machine) -> list[str]:
    """What there is, a line each."""
    about = machine.answers
    there = f"release {about['release']} is there; it is kept" if about["release"] else "not there yet"
    return [
        f"{machine.given}: {about['board'] or about['machine']}, {about['system']}, Python {about['python']}",
        f"  cameras   {cameras(machine)}",
        f"  Camdock   {there}",
    ]


WORDS = {
    "rollback": [
        "  1. stop the release that runs, and start the one that ran before it",
        "  2. watch its pictures; where none come, put back the one that runs now",
    ],
    "restore": [
        "  1. install the apt packages again that were removed for Camdock, in their versions, with their marks",
        "  2. let apt install them from now on. Camdock itself stays as it is",
    ],
}


def explanation(machine: Machine, given: argparse.Namespace) -> str:
    """What there is, and what will be done."""
    if given.play != "deploy":
        return "\n".join([*found(machine), "", "This will", *WORDS[given.play]])
    about = machine.answers
    steps = []
    person = "" if about["user"] in ("", "root") else f" and {about['user']}"
    how = ", as a container" if given.mode == "container" else ""
    if given.mode == "native" and (packages := in_the_way(machine)):
        steps += [
            f"remove {', '.join(packages)}: apt's own, in the way of the libraries that Camdock brings.",
            "   apt is asked first; nothing is done if it would take more. `make restore` puts them back",
        ]
    steps += [
        f"make a user `camdock` without a login, and let it{person} open cameras (group video)",
        f"install Camdock into /opt/camdock{how} (400 MB; some minutes)",
        f"start it now and at every boot, as the service `camdock`, on {address(machine, given)}",
        "watch its pictures for half a minute; where none come, put back what was there before",
    ]
    numbered, number = [], 0
    for step in steps:
        if step.startswith(" "):
            numbered.append(f"  {step}")
        else:
            number += 1
            numbered.append(f"  {number}. {step}")
    lines = [*found(machine), "", "This will", *numbered]
    if not given.loopback:
        lines += ["", "Whoever wants to see it needs a token, which is made there and is never shown here."]
    return "\n".join(lines)


def address(machine: Machine, given: argparse.Namespace) -> str:
    """Where its pictures will be."""
    if given.loopback:
        return f"http://127.0.0.1:{given.port} there, for that machine alone"
    name = f"[{machine.name}]" if ":" in machine.name else machine.name
    return f"http://{name}:{given.port}, for whoever has the token"


def variables(given: argparse.Namespace) -> dict[str, Any]:
    """What the play is told."""
    if given.play != "deploy":
        return {}
    told: dict[str, Any] = {
        "deploy_mode": given.mode,
        "deploy_host": "127.0.0.1" if given.loopback else "0.0.0.0",  # noqa: S104 - with a token
        "deploy_port": given.port,
    }
    if given.source:
        told["deploy_source"] = given.source
    if given.sources:
        told["deploy_sources"] = given.sources
    if given.image:
        told["deploy_image_archive" if Path(given.image).exists() else "deploy_image"] = (
            str(Path(given.image).resolve()) if Path(given.image).exists() else given.image
        )
    return told


def agreed() -> bool:
    """Whether the person says yes. Raises CannotGoOn where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise CannotGoOn("nobody is there to say yes: YES=1 says it beforehand")
    try:
        return input("\nGo on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def sudo_asks(machine: Machine, given: argparse.Namespace) -> bool:
    """Whether Ansible has to ask for sudo's password. Raises CannotGoOn where nobody can become root."""
    if machine.answers["sudo"] == "none":
        raise CannotGoOn(f"{machine.given} has no sudo: log in as root, or install it there (su -c 'apt install sudo')")
    if machine.answers["sudo"] != "asks" or any(word.startswith(PASSWORDS) for word in given.options):
        return False
    if not sys.stdin.isatty():
        raise CannotGoOn(
            f"on {machine.given} sudo asks for a password, and nobody is here to type it: "
            "ARGS=--become-password-file=FILE has it in a file"
        )
    return True


def deploy(machine: Machine, given: argparse.Namespace) -> int:
    """Run the play; returns its exit status."""
    program = Path(sys.executable).with_name("ansible-playbook")
    found = str(program) if program.exists() else shutil.which("ansible-playbook")
    if not found:
        raise CannotGoOn("ansible-playbook is not installed: `make` brings it, or pip install ansible")
    with tempfile.TemporaryDirectory(prefix="camdock-") as folder:
        inventory, told = Path(folder) / "inventory.json", Path(folder) / "variables.json"
        inventory.write_text(json.dumps(machine.inventory()))
        told.write_text(json.dumps(variables(given)))
        words = [
            found,
            "--inventory",
            str(inventory),
            "--extra-vars",
            f"@{told}",
            *given.options,
            str(HERE / PLAYS[given.play]),
        ]
        if sudo_asks(machine, given):
            words.insert(1, "--ask-become-pass")
        return subprocess.run(words, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Look, explain, ask, deploy; returns the exit status."""
    environment = os.environ.get
    parser = argparse.ArgumentParser(
        prog="make deploy",
        description="Deploy Camdock to one machine: look at it, explain what will be done, ask once, do it.",
        usage="make deploy HOST=user@name [MODE=container] [SOURCE=...] [PORT=8000] [IMAGE=...] [YES=1] [ARGS=--check]",
        allow_abbrev=False,
        epilog="`make rollback HOST=...` goes back to the release before, `make restore HOST=...` puts back the apt "
        "packages that were removed. Any other word (ARGS='--check --diff', ARGS=-vv) goes to ansible-playbook.",
    )
    parser.add_argument("--play", choices=PLAYS, default="deploy", help="what is done there (deploy)")
    parser.add_argument(
        "--mode", choices=MODES, default=environment("CAMDOCK_MODE") or "native",
        help="native: an environment and a systemd unit; container: Docker, on Debian 13",
    )  # fmt: skip
    parser.add_argument(
        "--source", default=environment("CAMDOCK_SOURCE", ""), help="the camera; what there is, unless told"
    )
    parser.add_argument("--sources", default=environment("CAMDOCK_SOURCES", ""), help="several, as NAME=SOURCE")
    parser.add_argument("--port", type=int, default=environment("CAMDOCK_PORT") or 8000, help="where to listen (8000)")
    parser.add_argument(
        "--image",
        default=environment("CAMDOCK_IMAGE", ""),
        help="with container: a file of docker save, or name@sha256:...",
    )
    parser.add_argument("--loopback", action="store_true", help="listen there for that machine alone")
    parser.add_argument("--ssh-config", default="", help="a file for ssh -F, instead of your own")
    parser.add_argument(
        "--yes", action="store_true", default=environment("CAMDOCK_YES", "") not in ("", "0"), help="do not ask"
    )
    given, words = parser.parse_known_args(arguments)
    # Not an argument to the parser: it would take the value of an option of ansible-playbook for the machine.
    given.host = environment("CAMDOCK_HOST", "")
    if not given.host and words and not words[0].startswith("-"):
        given.host = words.pop(0)
    given.options = words
    try:
        if not given.host:
            raise CannotGoOn(
                f"which machine? For example: make {given.play} HOST=pi@camera.local, or HOST=localhost for this one"
            )
        if given.mode not in MODES:
            raise CannotGoOn(f"MODE={given.mode} is none of {', '.join(MODES)}")
        if given.play == "deploy" and given.mode == "container" and not given.image:
            raise CannotGoOn(
                "MODE=container needs IMAGE=, a file of `docker save` or name@sha256:... For example:\n"
                "  make image IMAGES=optimized && docker save camdock:optimized >camdock.tar   (same kind of machine)"
            )
        machine = Machine(given.host, given.ssh_config)
        machine.check()
        machine.look()
        sudo_asks(machine, given)  # said before anything is asked
        print(explanation(machine, given))
        if not given.yes and not agreed():
            print("Nothing was changed.")
            return 0
        status = deploy(machine, given)
    except CannotGoOn as error:
        print(f"make {given.play}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("\nStopped. What was begun is finished or put back by the next `make deploy`.", file=sys.stderr)
        return 130
    if (
        given.play == "deploy"
        and status == 0
        and not {"--check", "-C", "--tags", "-t", "--skip-tags"} & set(given.options)
    ):
        sudo = "" if machine.answers["sudo"] == "root" else "sudo "
        terminal = "-t " if machine.answers["sudo"] == "asks" else ""  # where sudo can ask
        where = "" if machine.is_local else f"ssh {terminal}{machine.login} "
        print(f"\nPictures on {address(machine, given)}.\nThe token: {where}{sudo}cat /etc/camdock/token")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
