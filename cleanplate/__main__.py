"""`python -m cleanplate COMMAND ...`, the same as `cleanplate COMMAND ...`."""

import sys

from cleanplate.jobs.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
