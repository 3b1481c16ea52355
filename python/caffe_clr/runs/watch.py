"""Ends a training whose parent process is gone.

    python -m caffe_clr.runs.watch PID

It is a process, because no Python thread runs while Caffe trains. Standard output is the
pipe to the parent, and standard input a pipe from the training; each shows when the process
at its other end has ended.
"""

import os
import select
import signal
import sys

GRACE_SECONDS = 30.0  # for the iteration under way and a snapshot


def main() -> None:
    """Return when the training has ended; end the training when its parent has ended."""
    training, parent = sys.stdin.fileno(), sys.stdout.fileno()
    pid = int(sys.argv[1])
    poll = select.poll()
    poll.register(training, select.POLLIN)
    poll.register(parent, 0)  # errors alone: nobody reads any more
    if training in dict(poll.poll()):
        return
    poll.unregister(parent)
    os.kill(pid, signal.SIGHUP)
    if not poll.poll(1000 * GRACE_SECONDS):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
