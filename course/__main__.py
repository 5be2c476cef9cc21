"""`python -m course VERB` is the `course` command."""

import sys

from course.cli import main

if __name__ == "__main__":  # and not in the processes that `course warmup` starts
    sys.exit(main())
