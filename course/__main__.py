"""`python -m course VERB` is the `course` command."""

import sys

from course.cli import main

sys.exit(main())
