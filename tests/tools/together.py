"""How tests are handed out to pytest's workers: those of a shared service together, and those of a file without any.

Runs in the pytest process that the workers report to, which sees nothing of a test but its id. So a fixture that is a
shared service has one parameter, the name of that service, two words: `params=["door service"]` makes ids such as
`test_x[door service]`.
(xdist's own `--dist loadgroup` writes the group behind the id, which pytest 9.2 does not let it do.)
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

SERVICE = re.compile(r"[\[-](\w+ service)[\]-]")
WAITS = "tests/process/"


class Together(LoadScopeScheduling):
    """Half of the workers begin with what waits for processes, the others with what computes; the largest groups first.

    So there is always something to do while something is waited for. Who has no more of his own helps from the end.
    """

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith(WAITS):
            return nodeid.partition("::")[0]
        found = SERVICE.search(nodeid)
        return WAITS + found[1] if found else nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        waits = self.nodes.index(node) % 2 == 0
        own = (scope for scope in self.workqueue if scope.startswith(WAITS) == waits)
        self.workqueue.move_to_end(next(own, None) or next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
