"""`python -m tests.system.paced`: `pondwatch`, and the clock it is started with runs at $PONDWATCH_TEST_PACE.

The product gives a rate to simulated sites only, so that no rehearsal passes for data; and simulated data are
withheld from dialects that cannot mark them. To see an hour of such a dialect in less than an hour, a test
hands the clock in from outside, here and nowhere else: what runs is the command line with the site file as
they are. Deadlines of wires and networks stay real, as on every fast bench; the pauses between two attempts
to connect are short.
"""

from __future__ import annotations

import os
import sys
from typing import Self

from daemon import app
from daemon.clock import Clock
from daemon.commands import main


class Paced(Clock):
    """A clock with a rate, whatever the site file says of itself."""

    @classmethod
    def parse(cls, text: str, *, simulated: bool, step: str = "") -> Self:
        del text, simulated
        return super().parse(os.environ["PONDWATCH_TEST_PACE"], simulated=True, step=step)


if __name__ == "__main__":
    vars(app)["Clock"] = Paced  # the one seam
    sys.exit(main())
