"""camdock-release: which release of Camdock this host runs, and the way from one to another and back.

Runs on the host, as root, with the system's own Python; needs nothing but the standard library and systemd.

A switch is confirmed only after the new release has given pictures. Until then `switch.json` says where from and where
to; whoever finds that file without a living switch (`recover`: at boot, and before each deployment) puts the old
release back. So the order is: everything that takes room on the disk is written and synced first, then the old release
is stopped, and from there on names are only renamed and removed, which succeeds on a full disk too.
"""
