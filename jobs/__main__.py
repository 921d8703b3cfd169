"""`python -m cleanplate.jobs`, the same as `python -m cleanplate`."""

import sys

from cleanplate.jobs.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
