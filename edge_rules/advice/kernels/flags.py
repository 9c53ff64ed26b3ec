"""What one sample did to its channel, a bit each."""

from __future__ import annotations

MISSING = 1  # NaN or infinite: nothing happened
LATE = 2  # not later than the last: nothing happened
OUTLIER = 4  # of its own window; spike or step, the next two samples tell
SPIKE = 8  # decided now, of the sample before the last
SPIKE_PRESENT = 16  # the condition changed
SPIKE_GONE = 32
STEP = 64
RATE_PRESENT = 128
RATE_GONE = 256
RESTARTED = 512  # the clock had been in the future: statistics start anew
FLAT_PRESENT = 1024
FLAT_GONE = 2048
NOISE_PRESENT = 4096
NOISE_GONE = 8192
ONSET_PRESENT = 16384
ONSET_GONE = 32768
COMMON_PRESENT = 65536
COMMON_GONE = 131072
FORECAST_PRESENT = 262144  # or nearer than said before
FORECAST_GONE = 524288
GAP_GONE = 1048576
STEP_PRESENT = 2097152
STEP_GONE = 4194304
CHANGED = (
    SPIKE_PRESENT | SPIKE_GONE | RATE_PRESENT | RATE_GONE | FLAT_PRESENT | FLAT_GONE
    | NOISE_PRESENT | NOISE_GONE | ONSET_PRESENT | ONSET_GONE | COMMON_PRESENT | COMMON_GONE
    | FORECAST_PRESENT | FORECAST_GONE | GAP_GONE | STEP_PRESENT | STEP_GONE
)  # fmt: skip
