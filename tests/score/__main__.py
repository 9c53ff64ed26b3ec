"""`make scoreboard`: writes docs/scoreboard.md; PARTS= chooses, then only the screen is written."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.score import common, gnss, nab, pond, runup, stage, wells

PAGE = Path("docs/scoreboard.md")
PARTS = {
    "wells": ("Expected pressure: groundwater wells with injected changes", wells),
    "runup": ("Movement: synthetic run-ups, time of failure, a quiet pond", runup),
    "gnss": ("Movement: an earthquake in Japan", gnss),
    "stage": ("Data quality: stream stage and technicians' flags", stage),
    "pond": ("False alarms: a working tailings pond", pond),
    "nab": ("Numenta anomaly benchmark, given part", nab),
}
HEAD = """# Scoreboard

Written by `make scoreboard` from data that nobody here made (`PONDWATCH_DATA`, `../shared/data`), except where it
says synthetic. Detectors run as shipped, through the rules process's own entry point; what is tuned is tuned on
the earlier part of each series and judged on the later. What is not measured here: labelled piezometers of
tailings dams and displacement to a failure of known time, which nobody has published.

"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make scoreboard", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these, and no page")
    options = parser.parse_args()
    if not common.DATA.is_dir():
        parser.exit(
            3, f"real data not found in {common.DATA}: set PONDWATCH_DATA to the folder that holds it\n"
        )
    text = ""
    for name in options.parts or PARTS:
        title, part = PARTS[name]
        began = time.monotonic()
        about = (part.__doc__ or "").strip()
        body = f"## {title}\n\n{about}\n\n{part.report()}"
        print(f"{body}\n({time.monotonic() - began:.0f} s)\n", flush=True)  # noqa: T201
        text += body.rstrip() + "\n\n"
    if not options.parts:
        PAGE.write_text(HEAD + text.rstrip() + "\n")


if __name__ == "__main__":
    main()
