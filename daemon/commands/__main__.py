"""`python -m daemon.commands`: the same as the console script."""

import sys

from daemon.commands import main

sys.exit(main())
