"""A worker that dies in the midst of its answer."""

from __future__ import annotations

import os
import signal
import struct
import sys

from bridge.runners.work import Batch


def half_an_answer(batch: Batch) -> None:
    """Half of an answer of 200,000 bytes, as `multiprocessing.connection` writes it, by which the worker is killed."""
    answers = sys._getframe(1).f_locals["result_queue"]
    # As long as it is held, no other worker's answer is taken for the rest.
    with answers._wlock:
        os.write(answers._writer.fileno(), struct.pack("!i", 200_000) + bytes(100_000))
        os.kill(os.getpid(), signal.SIGKILL)
