"""The filter purge_mended: what `camdock abi check` said before and after, as lines that a person reads.

Runs in: ansible-playbook.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

Answer = dict[str, Any]  # of the module purge_abi


def purge_mended(before: Answer, after: Answer | None = None, going: Collection[str] = ()) -> list[str]:
    """What was broken and is mended, and what is broken still, with the fix.

    before, after  answers of purge_abi; after is None in check mode
    going          in check mode: the packages that would go; what they own would be mended
    """
    if before["why_not"]:
        return [f"camdock abi check could not be asked: {before['why_not']}"]
    if after is not None and after["why_not"]:
        return [f"camdock abi check could not be asked again: {after['why_not']}"]
    now = {one["target"]: one for one in (after or before)["targets"]}
    lines: list[str] = []
    for then in before["targets"]:
        lines += _of_target(then, now.get(then["target"], then), None if after is not None else going)
    return lines


def _of_target(then: Answer, now: Answer, going: Collection[str] | None) -> list[str]:
    if now["error"]:
        return [f"{now['target']}: {now['error']}"]
    if going is None:
        still = {_key(one) for one in now["broken"]}
        mended = [one for one in then["broken"] if _key(one) not in still]
        left = now["broken"]
    else:
        mended = [one for one in then["broken"] if _goes(one, going)]
        left = [one for one in now["broken"] if not _goes(one, going)]
    numpy = f"NumPy {now['numpy']}" if now["numpy"] else "no NumPy"
    head = f"{now['target']} ({numpy})"
    if not mended and not left:
        return [f"{head}: nothing is broken"]
    verb = "is mended" if going is None else "would be mended"
    lines = [f"{head}: {verb}: {_named(one)}" for one in mended]
    for one in left:
        lines += [f"{head}: BROKEN{' still' if going is None else ''}: {_named(one)}"]
        lines += [f"    to mend it: {one['fix']}"] if one["fix"] else []
    return lines


def _key(one: Answer) -> tuple[str, str]:
    return one["package"], one["what"]


def _goes(one: Answer, going: Collection[str]) -> bool:
    """Whether it is of a package that goes ("python3-h5py-serial 3.7.0-8 (dpkg)"), or such a one's hidden NumPy."""
    if one["package"]:
        return "(dpkg)" in one["package"] and one["package"].split()[0].partition(":")[0] in going
    return any(f"({name} " in one["what"] for name in going)


def _named(one: Answer) -> str:
    whose = f"{one['package']}: " if one["package"] else ""
    because = f" ({one['because']})" if one["because"] else ""
    return f"{whose}{one['what']}{because}"


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Iterable[str]]]:
        """The filters by name."""
        return {"purge_mended": purge_mended}
