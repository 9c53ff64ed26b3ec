from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_sim import rtu
from hardware_sim.rtu import RtuRequests
from tests.hardware_sim import golden

if TYPE_CHECKING:
    from random import Random


@pytest.mark.parametrize(
    "text",
    [
        golden.VTN416_REQUEST,
        golden.VTN416_REPLY,
        golden.KELLER_REQUEST,
        golden.KELLER_REPLY,
        golden.GEOKON_REQUEST,
        golden.GEOKON_REPLY,
        *golden.SCANS,
    ],
)
def test_the_checksum_of_every_published_frame_is_ours(text: str) -> None:
    frame = golden.raw(text)
    assert rtu.crc16(frame[:-2]) == frame[-2:]


REQUESTS = st.builds(
    rtu.frame,
    st.integers(0, 255),
    st.one_of(
        st.builds(lambda fn, rest: bytes((fn,)) + rest, st.integers(1, 6), st.binary(min_size=4, max_size=4)),
        st.builds(
            lambda fn, at, data: bytes((fn,)) + at + bytes((len(data),)) + data,
            st.sampled_from([15, 16]),
            st.binary(min_size=4, max_size=4),
            st.binary(max_size=30),
        ),
    ),
)


@given(st.lists(REQUESTS, max_size=6), st.randoms(use_true_random=False))
def test_requests_are_found_however_the_bytes_arrive(requests: list[bytes], random: Random) -> None:
    stream, cutter, found = b"".join(requests), RtuRequests(), []
    while stream:
        size = random.randint(1, 20)
        found += cutter.feed(stream[:size])
        stream = stream[size:]
    assert found == requests


@given(st.binary(max_size=12), REQUESTS)
def test_noise_before_a_request_is_skipped(noise: bytes, request: bytes) -> None:
    cutter = RtuRequests()
    # Noise may look like the head of a longer frame; what follows it long enough must come through.
    found = cutter.feed(noise + request * 40)
    assert found[-1] == request


def test_a_torn_request_is_dropped_when_the_line_has_been_silent() -> None:
    cutter = RtuRequests()
    whole = golden.raw(golden.VTN416_REQUEST)
    assert cutter.feed(whole[:5]) == []
    cutter.drop()
    assert cutter.feed(whole) == [whole]


@given(st.binary(max_size=4000))
def test_garbage_is_never_kept_beyond_a_frame(garbage: bytes) -> None:
    cutter = RtuRequests()
    cutter.feed(garbage)
    assert len(cutter._held) < 256
