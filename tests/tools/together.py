"""How tests are handed out to pytest's workers: one by one, but those of a shared service all to the same worker.

Runs in the pytest process that the workers report to, which sees nothing of a test but its id. So a fixture that is a
shared service has one parameter, the name of that service: `params=["door service"]` makes ids such as
`test_x[door service]`.
(xdist's own `--dist loadgroup` writes the group behind the id, which pytest 9.2 does not let it do.)
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

SERVICE = re.compile(r"[\[-](\w+ service)[\]-]")


class Together(LoadScopeScheduling):
    """The largest groups first, then single tests in the order of the files: the ones that wait begin."""

    def _split_scope(self, nodeid: str) -> str:
        found = SERVICE.search(nodeid)
        return found[1] if found else nodeid
