"""Answer: what an errand brought, or why it brought nothing.

Runs in: the doctor's process; the errands import it beside what they do, so it imports nothing that takes long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What an errand brought.

    given     everything that it said, as it said it; whole only where there is no trouble
    trouble   why there is no more; "" when it came to its end
    hung      it did not answer in time, and was killed
    waited_s  seconds since it had said something, or began, when it was given up
    stuck     it could not even be killed: where in the kernel it sleeps, and its process id
    """

    given: list[Any] = field(default_factory=list)
    trouble: str = ""
    hung: bool = False
    waited_s: float = 0.0
    stuck: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """The first answer, of an errand that gives one; {} where there is none."""
        return self.given[0] if self.given else {}
