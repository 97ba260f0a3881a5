"""`bridge.querycache`: the queries that were asked last."""

from __future__ import annotations

import threading

from bridge.querycache import LONGEST, QueryCache
from bridge.records import EncodedQuery


def test_the_query_that_was_not_asked_for_longest_goes() -> None:
    cache = QueryCache(2)
    a, b, c = (EncodedQuery(name) for name in "abc")
    cache.put("a", a)
    cache.put("b", b)
    assert cache.get("a") is a
    cache.put("c", c)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (a, None, c)
    assert len(cache) == 2


def test_nothing_is_kept_without_room_and_no_long_question_ever() -> None:
    none, some = QueryCache(0), QueryCache(2)
    none.put("a", EncodedQuery("a"))
    some.put("long", EncodedQuery("x" * (LONGEST + 1)))
    some.put("short", EncodedQuery("x" * LONGEST))
    assert (len(none), len(some)) == (0, 1)


def test_threads_share_it() -> None:
    cache = QueryCache(50)

    def work(start: int) -> None:
        for number in range(2000):
            name = str((start + number) % 80)
            found = cache.get(name)
            assert found is None or found.text == name
            cache.put(name, EncodedQuery(name))

    threads = [threading.Thread(target=work, args=(7 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 50
