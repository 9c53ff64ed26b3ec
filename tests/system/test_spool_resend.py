"""`pondwatch spool resend` against a running core and the bench's platform."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.fault.test_uplink_identity import site
from tests.fault.way import settled
from tests.system.running import until

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_range_is_sent_once_more_on_command_marked_and_audited(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.gateway() as daemon:
        await here.grown(6)
        await until(lambda: settled(daemon), "all is settled")
        before = here.summary.repeats
        asked = ("spool", "resend", "--range", "2-4", "--by", "Li")
        assert await daemon.verb(*asked) == (0, "batches 2 to 4 will be sent again over up\n")
        await until(lambda: here.summary.repeats >= before + 3, "the platform has them once more")
        code, _ = await daemon.verb("spool", "resend", "--range", "2-9999999", "--by", "Li")
        assert code == 1
        assert (await daemon.verb("spool", "resend", "--range", "2-4", "--by", "Li", "--uplink", "x"))[0] == 2
        assert (await daemon.verb("spool", "resend", "--range", "2-4"))[0] == 2
        assert (await daemon.verb("spool", "resend", "--range", "two", "--by", "Li"))[0] == 2
        audits = [json.loads(batch.payload) for batch in daemon.batches() if batch.kind == "audit"]
        told = [row for record in audits for row in record.get("records", [record])]
        (one,) = [row for row in told if row.get("what") == "spool.resend"]
        assert (one["by"], one["subject"]) == ("Li", "up")
        assert (one["to"]["from_seq"], one["to"]["to_seq"]) == (2, 4)
        assert (here.summary.forks, here.summary.holes) == (0, 0)
