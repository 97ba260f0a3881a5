"""Jobs: kept, run in order, ended and gone on with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.daemon.jobs import Jobs, Running
from bridge.daemon.jobstore import Job, JobStore
from bridge.errors import SettingsError, UsageError
from bridge.records import Progress


class Work:
    """Counts to a number, held at each step."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.steps = threading.Semaphore(0)
        self.at = threading.Semaphore(0)

    def __call__(self, job: Job, running: Running) -> Mapping[str, Any]:
        self.did.append(f"{job.index} {job.attempts}")
        if job.request == b"fail":
            raise UsageError("it cannot be done")
        if job.request == b"crash":
            raise ZeroDivisionError
        for number in range(int(job.request)):
            running.say(f"step {number}")
            running.report(Progress("ingest", number, number, None))
            self.at.release()
            assert self.steps.acquire(timeout=30)
        return {"steps": int(job.request)}


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with_one = JobStore(tmp_path / "jobs.sqlite")
    yield with_one
    with_one.close()


def until(so: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def state(store: JobStore, name: str) -> str:
    return store.require(name).state


def test_jobs_run_in_the_order_in_which_they_came(store: JobStore, work: Work) -> None:
    jobs = Jobs(store, work)
    names = [jobs.add("ingest", index, "me", b"0").id for index in "abc"]
    jobs.start()
    until(lambda: all(state(store, name) == "done" for name in names))
    assert work.did == ["a 1", "b 1", "c 1"]
    done = store.require(names[0])
    assert (done.result, done.error, done.owner) == ({"steps": 0}, None, "me")
    assert done.created <= (done.started or "") <= (done.ended or "")
    assert [job.id for job in store.newest()] == names[::-1]
    assert store.counts() == {"queued": 0, "running": 0, "done": 3, "failed": 0, "cancelled": 0}
    assert jobs.close(5)


def test_never_two_of_one_index(store: JobStore, work: Work) -> None:
    jobs = Jobs(store, work, most=3)
    first, second, other = (jobs.add("ingest", index, "", b"1").id for index in ("a", "a", "b"))
    jobs.start()
    until(lambda: state(store, other) == "running" and state(store, first) == "running")
    assert state(store, second) == "queued"
    for _ in range(3):
        work.steps.release()
    until(lambda: state(store, second) == "done")
    assert jobs.close(5)


@pytest.mark.parametrize(
    ("request_", "said"), [(b"fail", "it cannot be done"), (b"crash", "unexpected ZeroDivisionError; the daemon's log")]
)
def test_one_that_fails_says_why(store: JobStore, work: Work, request_: bytes, said: str) -> None:
    jobs = Jobs(store, work)
    jobs.start()
    name = jobs.add("ingest", "a", "", request_).id
    until(lambda: state(store, name) == "failed")
    assert said in (store.require(name).error or "")
    # What comes after it is done all the same.
    after = jobs.add("ingest", "a", "", b"0").id
    until(lambda: state(store, after) == "done")
    assert jobs.close(5)


def test_cancelling_and_resuming(store: JobStore, work: Work) -> None:
    jobs = Jobs(store, work)
    runs, waits = jobs.add("ingest", "a", "", b"3").id, jobs.add("ingest", "a", "", b"0").id
    jobs.start()
    assert work.at.acquire(timeout=10)
    assert jobs.cancel(waits)
    assert state(store, waits) == "cancelled"
    assert jobs.cancel(runs)
    work.steps.release()
    until(lambda: state(store, runs) == "cancelled")
    assert store.require(runs).said[0] == "step 0"
    assert not jobs.cancel(runs)
    for _ in range(3):
        work.steps.release()
    jobs.resume(runs)
    until(lambda: state(store, runs) == "done")
    assert work.did == ["a 1", "a 2"]
    assert jobs.close(5)


def test_a_daemon_that_ends_leaves_its_job_for_the_next(tmp_path: Path, work: Work) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    jobs = Jobs(store, work)
    name = jobs.add("ingest", "a", "", b"2").id
    jobs.start()
    assert work.at.acquire(timeout=10)
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(jobs.close(10)))
    closing.start()
    time.sleep(0.05)
    work.steps.release()
    closing.join()
    assert closed == [True]
    assert state(store, name) == "queued"
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    for _ in range(2):
        work.steps.release()
    others = Jobs(again, work)
    others.start()
    until(lambda: state(again, name) == "done")
    assert again.require(name).attempts == 2
    assert others.close(5)
    again.close()


def test_what_ran_when_a_daemon_was_killed_is_gone_on_with(tmp_path: Path, work: Work) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    store.add("one", "ingest", "a", "", b"0")
    assert store.begin_next() is not None
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    jobs = Jobs(again, work)
    jobs.start()
    until(lambda: state(again, "one") == "done")
    assert again.require("one").attempts == 2
    assert jobs.close(5)
    again.close()


def test_two_daemons_do_not_share_their_jobs(tmp_path: Path, store: JobStore) -> None:
    store.add("one", "ingest", "a", "", b"0")
    with pytest.raises(SettingsError, match="another bridge serve uses it"):
        JobStore(tmp_path / "jobs.sqlite")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_text("no database at all, but long enough to be looked at as if it were one" * 9)
    with pytest.raises(SettingsError, match="cannot be kept"):
        JobStore(tmp_path / "jobs.sqlite")


def test_only_the_last_lines_are_kept(store: JobStore, work: Work) -> None:
    jobs = Jobs(store, work)
    for _ in range(50):
        work.steps.release()
    name = jobs.add("ingest", "a", "", b"50").id
    jobs.start()
    until(lambda: state(store, name) == "done")
    assert store.require(name).said == [f"step {number}" for number in range(30, 50)]
    assert jobs.close(5)


def test_what_ended_long_ago_is_forgotten(store: JobStore, work: Work) -> None:
    told: list[tuple[str, bool]] = []
    jobs = Jobs(store, work, kept=2, forget=lambda name, whole: told.append((name, whole)))
    names = [jobs.add("ingest", "a", "", b"0").id for _ in range(3)]
    failed = jobs.add("ingest", "a", "", b"fail").id
    jobs.start()
    until(lambda: state(store, failed) == "failed")
    assert jobs.close(5)
    # Of one that failed nothing is taken away: it may be resumed.
    assert [name for name, whole in told if not whole] == names
    assert [name for name, whole in told if whole] == names[:2]
    assert [job.id for job in store.newest()] == [failed, names[2]]
