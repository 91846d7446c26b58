"""Become another program that dies with its parent: ``_launch.py SIGNAL PARENT UID GID PROGRAM [ARG…]``.

Run as a script in a fresh interpreter, never imported. Doing this here instead of in ``preexec_fn`` keeps
Python code out of the fork of a process that runs gRPC threads, and puts the order right: the parent death
signal is lost by a change of user, and kept by exec.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Change user if asked (UID -1: stay), tie our life to the parent's, then exec."""
    death_signal, parent, uid, gid = (int(arg) for arg in sys.argv[1:5])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot set the parent death signal")
    if os.getppid() != parent:  # it died before the line above, and nobody would ever signal us
        os._exit(1)
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
