"""OpenSearch's own YAML REST tests give the same answers through the proxy as without it.

The tests are those of the published archive, a sixth of those of searching; `make torture` runs all of them, and
BRIDGE_REST_TESTS=FOLDER all of a folder's instead (the ``rest-api-spec/test`` of a checkout), whatever they are of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import DownloadFailed
from tests.daemon.resttests import Runner, differences, load, stored_tests
from tests.daemon.test_proxy import proxied

PARTS = frozenset({"bulk", "get", "index", "msearch", "search"})

# Taken before any test has an environment of its own.
FOLDER = os.environ.get("BRIDGE_REST_TESTS")
ALL = bool(FOLDER or os.environ.get("BRIDGE_TORTURE"))


def archive() -> Path:
    if FOLDER:
        return Path(FOLDER)
    try:
        return stored_tests()
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the REST tests are not to be had here: {error}")


@pytest.fixture(scope="module")
def runners(opensearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Runner]]:
    """Directly; through a proxy for all of the tests' indices, which it takes in hand; through one for none of them."""
    folder = tmp_path_factory.mktemp("proxies")
    names = sorted(set[str]().union(*(test.indices for test in load(archive(), PARTS if not FOLDER else frozenset()))))
    with (
        proxied(folder, opensearch_url, *names) as named,
        proxied(folder, opensearch_url, "another") as unnamed,
    ):
        found = [Runner(url) for url in (opensearch_url, named, unnamed)]
        yield found
        for runner in found:
            runner.close()


@pytest.mark.parametrize("part", ["all"] if FOLDER else sorted(PARTS))
def test_the_same_answers(part: str, runners: list[Runner]) -> None:
    tests = load(archive(), frozenset() if part == "all" else frozenset({part}))
    if part == "search" and not ALL:
        tests = tests[::6]
    passed = answers = 0
    apart: list[str] = []
    for number, test in enumerate(tests):
        asked = runners[1:] if ALL else [runners[1 + number % 2]]
        direct, *through = (runner.run(test) for runner in (runners[0], *asked))
        passed += direct.outcome == "passed"
        answers += len(direct.answers)
        for went, runner in zip(through, asked, strict=True):
            # What an engine answers to the same request at another time may differ once, but not again.
            if differences(direct, went):
                again = differences(runners[0].run(test), runner.run(test))
                apart += [f"{test.name}: {one}" for one in again]
    print(f"{part}: {len(tests)} tests, {passed} pass, {answers} answers, {len(apart)} apart")
    assert not apart, "\n".join(apart)
    assert passed >= len(tests) // 2
