"""What a load spends its time on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_is_shared_out_between_reading_and_asking() -> None:
    clock = Clock()
    meter = Meter(clock)

    def ask(question: str) -> str:
        clock.now += 3.0
        return question.upper()

    asked = meter.asking(ask)

    def items() -> Iterator[str]:
        for item in ("a", "b"):
            clock.now += 2.0
            yield asked(item)
        clock.now += 1.0

    found = []
    for item in meter.reading(items()):
        clock.now += 10.0  # what is done with an item is neither
        found.append(item)
    assert found == ["A", "B"]
    effort = meter.effort(waited=0.5, retried=7, queued=9)
    assert (effort.encode_seconds, effort.engine_seconds) == (5.0, 6.5)
    assert (effort.retried, effort.queued, effort.in_flight) == (7, 9, 0)


def test_requests_under_way_are_counted_also_when_they_fail() -> None:
    meter = Meter()
    seen = []

    def send(body: bytes) -> list[dict[str, object]]:
        seen.append(meter.effort(waited=0, retried=0, queued=0).in_flight)
        if body == b"bad":
            raise ValueError
        return []

    sending = meter.sending(send)
    sending(b"good")
    with pytest.raises(ValueError):
        sending(b"bad")
    assert seen == [1, 1]
    assert meter.effort(waited=0, retried=0, queued=0).in_flight == 0


def test_an_error_of_the_source_passes_through() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    reading = Meter().reading(items())
    assert next(reading) == 1
    with pytest.raises(OSError, match="gone"):
        next(reading)
