"""What `camdock --help` says below its arguments: the commands, every source with its options, every variable.

Runs in: the API process, which ends with it.
"""

from __future__ import annotations

import shutil
import textwrap

from camdock.config import names_of, values_of, variables
from camdock.source import KINDS, Option

_COMMANDS = {
    "camdock [SOURCE]": "the service",
    "camdock devices": "what a container needs for this machine's cameras, as compose.override.yaml or `docker run`",
    "camdock doctor": "what is wrong on this machine, in words, and the command that mends it",
    "camdock abi": "judge compiled modules by NumPy's ABI, without loading any of them",
    "camdock seal": "judge all of them once, where an image is built, and not again at every start",
}
_EXAMPLES = (
    "examples (quoted: & and ? mean something to a shell):",
    "  camdock",
    "      the first camera of this machine, on http://127.0.0.1:8000",
    "  camdock 'v4l2:/dev/video0?size=1280x720&fps=30'",
    "      a certain camera",
    "  CAMDOCK_SOURCES='front=v4l2:0 nest=synthetic:' camdock",
    "      two cameras",
    "  CAMDOCK_TOKEN=$(openssl rand -hex 16) camdock --host 0.0.0.0",
    "      for the network, with a token",
    "",
    "camdock abi --help, camdock doctor --help and so on tell more of each command.",
)


def epilog() -> str:
    """What `--help` says below the arguments, no wider than the terminal; 80 to 120 columns."""
    width = min(max(shutil.get_terminal_size().columns, 80), 120) - 2
    return "\n".join([*_commands(width), "", *_sources(width), "", *_environment(width), "", *_EXAMPLES])


def _item(name: str, text: str, width: int, at: int, indent: int = 2) -> list[str]:
    """A name and, from column `at` on, what it means."""
    lead = (" " * indent + name).ljust(at)
    return textwrap.wrap(
        text, width, initial_indent=lead, subsequent_indent=" " * at, break_on_hyphens=False, break_long_words=False
    )


def _commands(width: int) -> list[str]:
    lines = ["commands:"]
    for name, text in _COMMANDS.items():
        lines += _item(name, text, width, 20)
    return lines


def _option(name: str, option: Option, width: int, indent: int) -> list[str]:
    values = f" ({option.values})" if option.values and not option.is_fault else ""
    text = option.help.removeprefix("fault: ") + values
    return _item(f"{name}=", text, width, indent + 19, indent)


def _sources(width: int) -> list[str]:
    """Every kind with its options; those that several kinds have are told once, behind them, and so are faults."""
    those = [item for kind in KINDS.values() for item in kind.options.items()]
    shared = {name: option for name, option in those if those.count((name, option)) > 1}
    lines = ["sources (the argument, or CAMDOCK_SOURCE=...), each with its own options:"]
    for kind in KINDS.values():
        lines += [f"  {kind.example}", *_item("", kind.help, width, 6)]
        own = [(name, option) for name, option in kind.options.items() if shared.get(name) != option]
        lines += [line for name, option in own if not option.is_fault for line in _option(name, option, width, 6)]
        lines += _item("options below:", " ".join(name for name in kind.options if name not in dict(own)), width, 21, 6)
    lines += ["", "options of several sources; all follow ? (behind an address #), with & between:"]
    for name, option in shared.items():
        lines += _option(name, option, width, 2)
    lines += ["", "faults of synthetic:, to try the service with (synthetic:?crash_after=100):"]
    return lines + [line for name, option in those if option.is_fault for line in _option(name, option, width, 2)]


def _environment(width: int) -> list[str]:
    said = "environment: what it does not say may stand in a file `.env` of the folder that camdock is started in"
    lines = textwrap.wrap(f"{said}. The arguments win over both.", width)
    for name, default, text in variables():
        field = name.removeprefix("CAMDOCK_").lower()
        names, values = names_of(field), values_of(field)
        notes = [f"default {default}"] if default else []
        notes += [", ".join(values)] if values else []
        lines += [f"  {' or '.join(names)}" + (f"  ({'; '.join(notes)})" if notes else ""), *_item("", text, width, 6)]
    return lines
