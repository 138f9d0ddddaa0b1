"""``peas`` as a command: the native program itself, which the extension holds too.

For scripts see ``python -m peas --help``; from Python use the package instead, which raises exceptions.
"""

from __future__ import annotations

import signal
import sys

from peas import _peas


def main() -> int:
    """Runs the command line of this process. Returns the exit code."""
    # Ctrl-C is the program's: the interpreter's own handler would be called too, and would raise when all is over.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _peas.command(["peas", *sys.argv[1:]], [sys.executable, "-m", "peas"])


if __name__ == "__main__":
    sys.exit(main())
