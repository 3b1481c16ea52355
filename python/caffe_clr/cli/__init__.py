"""The command line of caffe-clr: parses arguments, calls the package and prints the results.

Each command imports the slow modules that it needs.
"""

import signal


def main() -> None:
    """Run the command line; every error is one message and an exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once, as long as nothing is begun
    from caffe_clr.cli import entry

    entry.main()
