"""The daemon's page in a real browser, on a real node.

`BRIDGE_GOLDEN=write` makes the screenshots of docs/images anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.engines import Engine
from tests.daemon.browser import Watch, launched, opened
from tests.daemon.running import ROOT, serving
from tests.daemon.test_serve import Bridge, Daemon
from tests.models import word_bert

CORPUS = ROOT / "bridge" / "demo_data"
IMAGES = ROOT / "docs" / "images"
WRITE = os.environ.get("BRIDGE_GOLDEN") == "write"
INDEX = "articles"
QUESTION = "why does my bread turn out heavy"

pytestmark = [pytest.mark.node]

Opened = tuple[Any, Watch]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def daemon(browser: Any, opensearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the demo corpus in an index."""
    folder = tmp_path_factory.mktemp("daemon")
    environment = {"BRIDGE_CACHE_DIR": str(folder / "cache"), "BRIDGE_DATA_DIR": str(folder / "data")}
    (folder / "bridge.toml").write_text(f'[serve]\nroots = ["{CORPUS.parent}"]\n')
    words = ("--url", opensearch_url, "serve", "--port", "0")
    with (
        serving(folder, *words, **environment) as (url, process, said),
        httpx.Client(base_url=url, timeout=60) as client,
        httpx.Client(base_url=opensearch_url, timeout=60) as engine,
    ):
        engine.delete(f"/{INDEX}")
        one = Daemon(process, client, said)
        job = one.wait(one.ok("POST", "/v1/ingest", 202, json={"index": INDEX, "source": CORPUS.name}))
        assert job["result"]["indexed"] == 240, job
        yield one
        engine.delete(f"/{INDEX}")
        assert one.stop() == 0


@pytest.fixture
def at(daemon: Daemon) -> str:
    return str(daemon.client.base_url).rstrip("/")


@pytest.fixture
def seen(browser: Any, at: str) -> Iterator[Opened]:
    with opened(browser, at, permissions=["clipboard-read", "clipboard-write"]) as found:
        yield found


def shoot(what: Any, name: str, **how: Any) -> None:
    if WRITE:
        IMAGES.mkdir(exist_ok=True)
        what.screenshot(path=str(IMAGES / f"{name}.png"), animations="disabled", **how)


def ask(page: Any, question: str = QUESTION) -> None:
    page.get_by_role("searchbox").fill(question)
    page.get_by_role("button", name="Search", exact=True).click()
    settled(page)


def settled(page: Any) -> None:
    page.wait_for_selector('#results[aria-busy="false"] .column')


def numbers(page: Any, where: str) -> list[float]:
    return [float(one.get_attribute("value")) for one in page.locator(f"{where} data").all()]


def ids(page: Any, column: str) -> list[str]:
    return [str(one.get_attribute("data-id")) for one in page.locator(f".column.{column} .hit").all()]


def ingest(page: Any, index: str, lines: str) -> None:
    page.get_by_role("tab", name="Ingest").click()
    page.get_by_label("Into the index").fill(index)
    page.get_by_label("JSON lines").fill(lines)
    page.get_by_role("button", name="Ingest", exact=True).click()


def ended(page: Any, state: str = "done") -> None:
    page.wait_for_selector(f"#job-state.{state}", timeout=120_000)


def search_in(page: Any, index: str) -> None:
    """Go from a job to its index."""
    page.get_by_role("button", name=f"Search {index}").click()
    arrived(page, index)


def arrived(page: Any, index: str) -> None:
    page.wait_for_selector("#panel-search:not([hidden])")
    assert page.get_by_role("combobox", name="Index", exact=True).input_value() == index


# --- search


def test_three_ways_beside_each_other(seen: Opened, daemon: Daemon) -> None:
    page, watch = seen
    page.goto("/")
    ask(page)
    assert page.locator(".column h3").all_inner_texts() == ["BM25", "Sparse", "Hybrid"]
    for column, how in (("bm25", {"ranked_by": "bm25"}), ("sparse", {}), ("hybrid", {"hybrid": "bm25"})):
        found = daemon.ok("POST", "/v1/search", json={"index": INDEX, "text": QUESTION, **how})
        assert ids(page, column) == [hit["id"] for hit in found["hits"]]
        assert numbers(page, f".column.{column} .score") == [hit["score"] for hit in found["hits"]]
    assert page.locator("#status").inner_text() == "Hits: BM25 10, Sparse 10, Hybrid 10."
    assert "240 documents" in page.locator("#facts").inner_text()
    assert "no dense vectors" in page.locator(".column.hybrid .says").inner_text()
    # Where the others have the same document.
    best = page.locator(".column.sparse .hit").first
    places = [ids(page, column).index(ids(page, "sparse")[0]) + 1 for column in ("bm25", "hybrid")]
    assert best.locator(".chip").all_inner_texts() == [f"BM25 {places[0]}", f"Hybrid {places[1]}"]
    ask(page)
    shoot(page, "page-search", clip={"x": 0, "y": 0, "width": 1360, "height": 900})
    # The address holds what is asked, behind the #.
    page.reload()
    settled(page)
    assert page.get_by_role("searchbox").input_value() == QUESTION
    assert not [one.url for one in watch.asked if "bread" in one.url.partition("#")[0]]


def test_which_tokens_and_words_made_a_score(seen: Opened, daemon: Daemon) -> None:
    page, _ = seen
    page.goto("/")
    ask(page)
    for column, how in (("bm25", {"ranked_by": "bm25"}), ("sparse", {})):
        asked = {"index": INDEX, "text": QUESTION, "explain": True, **how}
        for place, hit in enumerate(daemon.ok("POST", "/v1/search", json=asked)["hits"][:3]):
            shown = page.locator(f".column.{column} .hit").nth(place)
            shown.locator("summary").click()
            shown.locator(".wide").wait_for()
            rows = shown.locator(".wide tbody tr")
            made = [float(row.locator("data").nth(2).get_attribute("value")) for row in rows.all()]
            assert made == [token["contribution"] for token in hit["explanation"]["tokens"]]
            assert sum(made) == pytest.approx(hit["score"], rel=1e-5)
            # The bars are as long as the contributions: all of a column on one scale.
            widths = [one.bounding_box()["width"] for one in shown.locator(".tokens").first.locator(".bar span").all()]
            assert [width / widths[0] for width in widths] == pytest.approx(
                [value / made[0] for value in made[: len(widths)]], abs=0.03
            )
            text = hit["explanation"]["text"]
            words = {text[start:end] for token in hit["explanation"]["tokens"] for start, end in token["words"]}
            assert words
            assert set(shown.locator("mark").all_inner_texts()) == words
    shown = page.locator(".column.sparse .hit").nth(1)
    shown.locator("tr[data-token]").first.hover()
    assert shown.locator("mark.pointed").count() > 0
    assert shown.locator("mark:not(.pointed)").count() > 0
    ask(page, "what causes two high tides in a day")
    shown = page.locator(".column.sparse .hit").first
    shown.locator("summary").click()
    shown.locator(".wide").wait_for()
    shoot(shown, "page-explain")


def test_the_dsl_is_copied_and_finds_the_same(seen: Opened, daemon: Daemon, opensearch_url: str) -> None:
    page, _ = seen
    page.goto("/")
    ask(page)
    for column in ("bm25", "sparse", "hybrid"):
        page.locator(f".column.{column} .copy").click()
        page.wait_for_selector(f".column.{column} .copy:text('Copied')")
        copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert page.locator("#status").inner_text() == "The DSL is copied."
        page.locator(f".column.{column} .dsl summary").click()
        assert json.loads(page.locator(f".column.{column} .dsl pre").inner_text()) == copied
        hits = httpx.post(f"{opensearch_url}/{INDEX}/_search", json=copied, timeout=60).json()["hits"]["hits"]
        assert [hit["_id"] for hit in hits] == ids(page, column)
    # Without a clipboard, as over plain HTTP from another machine.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator(".column.bm25 .copy").click()
    page.wait_for_selector(".column.bm25 .copy:text('Copied')")


def test_a_long_text_is_shown_around_its_words(seen: Opened, daemon: Daemon, fresh: str) -> None:
    page, _ = seen
    words = "alder birch cedar elder hazel larch maple"
    text = f"{'🌲 filler ' * 200}{words} {'filler ' * 200}"
    page.goto("/")
    ingest(page, fresh, "\n".join(json.dumps({"_id": str(n), "text": one}) for n, one in enumerate([text, "filler"])))
    ended(page)
    search_in(page, fresh)
    ask(page, words)
    for column in ("bm25", "sparse", "hybrid"):
        shown = page.locator(f".column.{column} .hit").first
        assert shown.locator(".text mark").all_inner_texts() == words.split()
        assert shown.locator(".text").inner_text().startswith("… ")
        assert len(shown.locator(".text").inner_text()) < 500
        # Five bars; all of the tokens in the fold.
        assert shown.locator(".tokens tbody tr").count() == 5
        shown.get_by_text("2 more tokens, weights and fields").click()
        shown.locator(".wide").wait_for()
        assert shown.locator(".wide tbody tr").count() == 7
        shown.get_by_role("button", name="Show the whole text").click()
        assert shown.locator(".text").inner_text().strip() == text.strip()
        assert shown.locator(".text mark").all_inner_texts() == words.split()


def test_options(seen: Opened) -> None:
    page, watch = seen
    page.goto("/")
    page.get_by_text("Options", exact=True).first.click()
    page.get_by_label("Hits").fill("3")
    page.get_by_label("Filter").fill('{"term": {"subject.keyword": "cooking"}}')
    page.get_by_label("Fusion").select_option("rrf")
    page.get_by_label("Hybrid of").fill("bm25^2")
    page.get_by_label("Prune").fill("top-k=2")
    page.get_by_label("BM25", exact=True).uncheck()
    ask(page)
    sparse, hybrid = watch.sent("/v1/search")
    shared = {"index": INDEX, "explain": True, "size": 3, "filter": {"term": {"subject.keyword": "cooking"}},
              "text": QUESTION, "prune": "top-k=2"}  # fmt: skip
    assert sparse == shared
    assert hybrid == shared | {"hybrid": "bm25^2", "fusion": "rrf"}
    assert page.locator(".column").count() == 2
    assert "pruned" in page.locator(".column.sparse .counts").inner_text()
    page.get_by_label("Filter").fill("[1]")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "The filter is not a JSON object" in page.locator("#results").inner_text()
    assert page.get_by_label("Filter").get_attribute("aria-invalid") == "true"
    page.get_by_label("Filter").fill("")
    page.get_by_label("Hits").fill("0")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "a whole number from 1 to 100" in page.locator("#results").inner_text()
    page.get_by_label("Hits").fill("1")
    page.get_by_role("searchbox").fill(" ")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "There is no question yet" in page.locator("#results").inner_text()
    assert len(watch.sent("/v1/search")) == 2


def test_a_conversation(seen: Opened, daemon: Daemon) -> None:
    page, watch = seen
    page.goto("/")
    page.get_by_role("checkbox", name="Conversation").check()
    page.get_by_label("Read as").select_option("all")
    ask(page, "why does my bread turn out heavy")
    page.get_by_label("Answer to question 1").fill("the yeast was too old")
    ask(page, "and what makes the crust thick")
    turns = [
        {"question": "why does my bread turn out heavy", "answer": "the yeast was too old"},
        {"question": "and what makes the crust thick"},
    ]
    sent = watch.sent("/v1/search")
    assert [one["turns"] for one in sent] == [[{"question": turns[0]["question"]}]] * 3 + [turns] * 3
    assert {one["conversation"] for one in sent} == {"all"}
    found = daemon.ok("POST", "/v1/search", json={"index": INDEX, "turns": turns, "conversation": "all"})
    assert ids(page, "sparse") == [hit["id"] for hit in found["hits"]]
    assert page.locator("#turns .asked").all_inner_texts() == [one["question"] for one in turns]
    shoot(page, "page-conversation", clip={"x": 0, "y": 0, "width": 1360, "height": 760})
    page.get_by_role("button", name="Remove question 1").click()
    assert page.locator("#turns .asked").all_inner_texts() == [turns[1]["question"]]
    page.get_by_role("button", name="Begin anew").click()
    assert page.locator("#turns .asked").count() == 0


def test_dense_parts_and_passages(
    browser: Any, daemon: Daemon, opensearch_url: str, engine: Engine, index: str, tmp_path: Path, bridge: Bridge
) -> None:
    """An index with dense vectors is asked by all three parts; of one with passages the best is shown."""
    texts = [json.loads(line)["text"] for line in (CORPUS / "corpus.jsonl").read_text("utf-8").splitlines()]
    dense = word_bert(tmp_path / "dense", sorted({word for text in texts for word in text.lower().split()}))
    assert bridge("fit", str(CORPUS), "-o", "model")[0] == 0
    (tmp_path / "bridge.toml").write_text(
        f'[serve]\ndata = "{tmp_path / "serve"}"\nroots = ["{CORPUS.parent}"]\n'
        f'[serve.models]\nown = "{tmp_path / "model"}"\ndense = "{dense}"\n'
    )
    names = {"dense": f"{index}-dense", "nested": f"{index}-nested"}
    registered = {"dense": {"dense": "dense"}, "nested": {"passages": "nested", "passage_tokens": 24}}
    with (
        serving(tmp_path, "--url", opensearch_url, "serve", "--port", "0") as (url, process, said),
        httpx.Client(base_url=url, timeout=60) as client,
        opened(browser, url) as (page, _),
    ):
        one = Daemon(process, client, said)
        for name, how in registered.items():
            one.ok("PUT", f"/v1/indexes/{names[name]}", json={"model": "own", "text_fields": ["title", "text"], **how})
            given = {"dense": "dense"} if name == "dense" else {}
            job = {"index": names[name], "source": CORPUS.name, "model": "own", **given}
            done = one.wait(one.ok("POST", "/v1/ingest", 202, json=job))
            assert done["state"] == "done", done
        page.goto(f"/#index={names['dense']}&q={QUESTION}")
        settled(page)
        assert page.locator("#status").inner_text() == "Hits: BM25 10, Sparse 10, Hybrid 10."
        assert "sparse + BM25 + dense" in page.locator(".column.hybrid .says").inner_text()
        asked = {"index": names["dense"], "text": QUESTION, "hybrid": "bm25,dense"}
        assert ids(page, "hybrid") == [hit["id"] for hit in one.ok("POST", "/v1/search", json=asked)["hits"]]
        page.get_by_role("combobox", name="Index", exact=True).select_option(names["nested"])
        ask(page)
        assert page.locator(".problem").count() == 0
        assert "best passage: characters" in page.locator(".column.sparse .about").first.inner_text()
        assert page.locator(".column.sparse .hit mark").count() > 10
        page.get_by_role("tab", name="Indexes").click()
        assert "a vector for each passage" in page.locator("#cards").inner_text()
        assert one.stop() == 0
    for name in names.values():
        engine.delete_index(name)


# --- ingest

LINES = [
    json.dumps({"_id": "1", "title": "Sourdough", "text": "A slow rise makes a light loaf."}),
    '{"_id": "2", "title": "A line that breaks off',
    json.dumps({"title": "Nobody", "text": "It has no id."}),
    json.dumps({"_id": "4", "title": "Rye", "text": "Rye bread is dense and keeps for a week."}),
]


@pytest.fixture
def fresh(index: str) -> str:
    """A name for an index that is deleted afterwards."""
    return index


def test_ingest_with_lines_that_cannot_go_in(seen: Opened, daemon: Daemon, fresh: str, opensearch_url: str) -> None:
    page, _ = seen
    if WRITE:
        fresh = "recipes"
    page.goto("/")
    ingest(page, fresh, "\n".join(LINES))
    ended(page)
    counts = page.locator("#job-counts .counts > div").all_inner_texts()
    assert dict(one.split("\n") for one in counts) == {
        "source": "4", "indexed": "2", "unchanged": "0", "deleted": "0", "dead": "2", "retried": "0"
    }  # fmt: skip
    page.wait_for_selector("#letter-rows tr")
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#letter-rows tr").all()]
    assert [(line, name) for line, name, *_ in rows] == [("2", "none"), ("3", "none")]
    assert "not JSON" in rows[0][2] or "JSON" in rows[0][2]
    assert "no id" in rows[1][2]
    assert page.evaluate("document.querySelector('progress').value") == 1
    assert page.locator("#status").inner_text() == "The job is done; 2 documents could not go in."
    page.wait_for_selector(f"#jobs li:first-child:has-text('{fresh}: done 2 indexed, 2 dead')")
    shoot(page, "page-ingest", clip={"x": 0, "y": 0, "width": 1360, "height": 820})
    # What could not go in is mended and sent again; the rest of that run is not there twice.
    page.get_by_role("button", name="Mend these").click()
    broken, nameless = page.get_by_label("JSON lines").input_value().splitlines()
    assert (broken, json.loads(nameless)) == (LINES[1], json.loads(LINES[2]))
    page.get_by_label("JSON lines").fill("\n".join([LINES[1] + '"}', LINES[2].replace("{", '{"_id": "3", ', 1)]))
    first = page.locator("#job-time").inner_text().split()[-1]
    page.get_by_role("button", name="Ingest", exact=True).click()
    page.wait_for_function("first => !document.querySelector('#job-time').innerText.includes(first)", arg=first)
    ended(page)
    assert "indexed\n2\n" in page.locator("#job-counts").inner_text()
    # A new index is there to be asked.
    search_in(page, fresh)
    if WRITE:
        httpx.delete(f"{opensearch_url}/{fresh}").raise_for_status()


def test_many_dead_letters(seen: Opened, daemon: Daemon, fresh: str) -> None:
    page, _ = seen
    page.goto("/")
    ingest(page, fresh, "\n".join([LINES[0], *(json.dumps({"text": f"nameless {n}"}) for n in range(60))]))
    ended(page)
    page.get_by_text("60 could not go in").wait_for()
    assert page.locator("#letter-rows tr").count() == 50
    page.get_by_role("button", name="Show more (10 left)").click()
    page.wait_for_selector("#letter-rows tr:nth-child(60)")
    page.get_by_role("button", name="Mend these").click()
    mended = [json.loads(line)["text"] for line in page.get_by_label("JSON lines").input_value().splitlines()]
    assert mended == [f"nameless {n}" for n in range(60)]


def test_a_file_in_progress_and_cancelled(seen: Opened, daemon: Daemon, fresh: str, tmp_path: Path) -> None:
    page, _ = seen
    documents = [json.loads(line) for line in (CORPUS / "corpus.jsonl").read_text("utf-8").splitlines()]
    file = tmp_path / "many.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for copy in range(120):
            out.writelines(json.dumps(one | {"_id": f"{one['_id']}-{copy}"}) + "\n" for one in documents)
    page.goto("/#tab=ingest")
    page.get_by_label("Into the index").fill(fresh)
    page.get_by_label("Or a file").set_input_files(file)
    assert "many.jsonl is taken" in page.locator("#lines-note").inner_text()
    page.get_by_role("button", name="Ingest", exact=True).click()
    page.wait_for_selector("#job-state.running")
    page.wait_for_function("Number(document.querySelector('#job-counts dd')?.textContent.replace(',', '')) > 0")
    page.get_by_role("button", name="Cancel").click()
    ended(page, "cancelled")
    page.get_by_role("button", name="Go on where it stopped").click()
    ended(page)
    assert "28,800" in page.locator("#job-counts").inner_text()


def test_where_ids_and_texts_are(seen: Opened, daemon: Daemon, fresh: str) -> None:
    page, _ = seen
    page.goto("/#tab=ingest")
    page.locator("#ingest-form").get_by_text("Options", exact=True).click()
    page.get_by_label("Id field").fill("key")
    page.get_by_label("Text fields").fill("head, body")
    held: list[Any] = []
    page.route("**/v1/indexes", lambda route: held.append(route))  # no builtin: playwright keeps something on it
    ingest(page, fresh, json.dumps({"key": "one", "head": "Tides", "body": "The sea rises and falls."}))
    ended(page)
    assert "indexed\n1\n" in page.locator("#job-counts").inner_text()
    # Who is quicker than the list of indexes is not sent to one that the page does not know yet.
    page.get_by_role("button", name=f"Search {fresh}").click()
    while not held:
        page.wait_for_timeout(20)
    assert page.locator("#panel-search").is_hidden()
    page.unroute("**/v1/indexes")  # lets them go on
    arrived(page, fresh)
    assert "text: head, body" in page.locator("#facts").inner_text()
    ask(page, "the sea")
    assert ids(page, "sparse") == ["one"]


def test_what_cannot_be_sent(seen: Opened, daemon: Daemon) -> None:
    page, _ = seen
    page.goto("/#tab=ingest")
    page.get_by_role("button", name="Ingest", exact=True).click()
    assert "Name an index" in page.locator("#ingest-problem").inner_text()
    page.get_by_label("Into the index").fill("Not A Name")
    page.get_by_role("button", name="Ingest", exact=True).click()
    assert "There are no documents yet" in page.locator("#ingest-problem").inner_text()
    page.get_by_label("JSON lines").fill(LINES[0])
    page.get_by_role("button", name="Ingest", exact=True).click()
    ended(page, "failed")
    assert "Not A Name" in page.locator("#job-problem").inner_text()


def test_an_evaluation_is_a_job_too(seen: Opened, daemon: Daemon) -> None:
    page, _ = seen
    measured = daemon.wait(daemon.ok("POST", "/v1/evaluate", 202, json={"index": INDEX, "folder": CORPUS.name}))
    page.goto("/#tab=ingest")
    page.get_by_role("button", name=f"{INDEX}: done").first.click()
    ended(page)
    shown = page.locator("#job-counts").inner_text()
    assert f"ndcg@10\n{measured['result']['ndcg@10']:.3f}" in shown


# --- safety


def test_a_document_is_text(seen: Opened, daemon: Daemon, fresh: str) -> None:
    page, _ = seen
    attack = "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 2'> 🦊 fox"
    document = {"_id": f"<b>{attack}</b>", "title": f"{attack} title", "text": f"the 🦊 fox {attack}", attack: attack}
    page.goto("/")
    ingest(page, fresh, json.dumps(document) + "\n" + json.dumps({"title": attack, "text": attack}))
    ended(page)
    page.wait_for_selector("#letter-rows tr")
    search_in(page, fresh)
    ask(page, f"fox {attack}")
    for column in ("bm25", "sparse", "hybrid"):
        hit = page.locator(f".column.{column} .hit").first
        assert hit.locator("h4").inner_text() == document["title"]
        assert hit.locator(".id").inner_text() == document["_id"]
        # Places count characters, not UTF-16 units: a word behind an emoji is marked as it stands.
        assert set(hit.locator(".text mark").all_inner_texts()) >= {"fox"}
        assert hit.locator("script, img, b").count() == 0
        hit.locator("summary").last.click()
    page.get_by_role("tab", name="Indexes").click()
    assert page.evaluate("window.harmed") is None


def test_the_policy_forbids_what_is_not_the_daemon_s(seen: Opened) -> None:
    page, watch = seen
    watch.allowed += ["Content Security Policy", "violates", "thrown on purpose"]
    page.goto("/")
    page.wait_for_selector("#facts li")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.harmed = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<p style='color: red' onclick='harmed = 1'>x</p>");
    }""")
    assert page.evaluate("window.harmed") is None
    assert len([one for one in watch.complaints if "Content Security Policy" in one]) >= 2
    # What goes wrong in a page is seen by these tests.
    page.evaluate("setTimeout(() => { throw new Error('thrown on purpose'); })")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")
    assert [one for one in watch.complaints if "thrown on purpose" in one]


def test_a_key_is_asked_for_and_kept_for_the_tab(
    browser: Any, daemon: Daemon, opensearch_url: str, tmp_path: Path
) -> None:
    from bridge.daemon.keys import KeyFile

    keys = KeyFile(tmp_path / "keys.json")
    reader, _ = keys.add("reader", "read")
    (tmp_path / "bridge.toml").write_text(f'[serve]\nkeys_file = "{keys.path}"\ndata = "{tmp_path / "serve"}"\n')
    with (
        serving(tmp_path, "--url", opensearch_url, "serve", "--port", "0") as (url, process, _),
        opened(browser, url) as (page, watch),
    ):
        watch.allowed += ["401 (Unauthorized)", "403 (Forbidden)"]
        page.goto("/")
        page.get_by_text("This daemon asks for an API key").wait_for()
        page.get_by_label("API key").fill("nsb_wrong")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("this API key is not known").wait_for()
        page.get_by_label("API key").fill(reader)
        page.keyboard.press("Enter")
        page.get_by_text("The key is taken.").first.wait_for()
        ask(page)
        assert page.locator(".hit").count() == 30
        sent = [one for one in watch.asked if one.url.endswith("/v1/search")]
        assert [one.headers.get("authorization") for one in sent] == [f"Bearer {reader}"] * 3
        assert page.evaluate("[JSON.stringify(localStorage), document.cookie]") == ["{}", ""]
        assert json.loads(page.evaluate("JSON.stringify(sessionStorage)")) == {"api-key": reader}
        assert reader not in page.content() + page.url
        # What the key does not allow is said.
        ingest(page, INDEX, LINES[0])
        page.get_by_text("write is needed").wait_for()
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_text("This daemon asks for an API key").wait_for()
        assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"
        process.terminate()
        process.wait(60)


# --- when something is wrong


def test_errors_are_readable(seen: Opened, daemon: Daemon, opensearch_url: str) -> None:
    page, watch = seen
    watch.allowed += ["400 (Bad Request)"]
    page.goto("/")
    page.get_by_text("Options", exact=True).first.click()
    page.get_by_label("Prune").fill("magic=1")
    page.get_by_label("Filter").fill('{"no_such": {}}')
    ask(page)
    assert "unknown query [no_such]" in page.locator(".column.bm25 .problem").inner_text()
    problem = page.locator(".column.sparse .problem").inner_text()
    assert "Usage error (400)" in problem
    assert "magic" in problem
    assert "Request " in problem
    assert page.locator("#status").inner_text() == "Hits: BM25 failed, Sparse failed, Hybrid failed."


def test_a_daemon_that_is_busy_or_gone(browser: Any, daemon: Daemon, opensearch_url: str, tmp_path: Path) -> None:
    import socket
    from urllib.parse import urlsplit

    (tmp_path / "bridge.toml").write_text(
        f'[serve]\ndata = "{tmp_path / "serve"}"\n[serve.limits]\nrequests = 4\nbody_bytes = 5000\n'
    )
    with (
        serving(tmp_path, "--url", opensearch_url, "serve", "--port", "0") as (url, process, _),
        opened(browser, url) as (page, watch),
    ):
        watch.allowed += ["429 (Too Many Requests)", "413 (", "ERR_CONNECTION_REFUSED"]
        page.goto("/")
        page.wait_for_selector("#facts li")
        place = urlsplit(url)
        held = [socket.create_connection((place.hostname, place.port)) for _ in range(4)]
        for one in held:
            # Bodies that do not come: each is a request under way.
            one.sendall(f"POST /v1/rewrite HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
                        "Content-Length: 100\r\n\r\n".encode())  # fmt: skip
        ask(page)
        problem = page.locator(".column.sparse .problem")
        assert "Too many requests (429)" in problem.inner_text()
        assert "It asks to wait for 1 s." in problem.inner_text()
        for one in held:
            one.close()
        page.locator(".column.sparse").get_by_role("button", name="Try again").click()
        page.wait_for_selector(".column.sparse .hit")
        settled(page)
        page.get_by_role("tab", name="Ingest").click()
        page.get_by_label("Into the index").fill("never")
        large = {"name": "large.jsonl", "mimeType": "application/x-ndjson", "buffer": b"x" * 12_000_000}
        page.get_by_label("Or a file").set_input_files(large)
        page.get_by_role("button", name="Ingest", exact=True).click()
        page.get_by_text("Request too large (413)").wait_for()
        page.get_by_role("tab", name="Search").click()
        process.terminate()
        process.wait(60)
        ask(page)
        assert "The daemon does not answer" in page.locator(".column.sparse .problem").inner_text()


# --- for everybody


def test_with_the_keyboard_alone(seen: Opened, daemon: Daemon, fresh: str) -> None:
    page, _ = seen
    page.goto("/")
    page.wait_for_selector("#facts li")

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if focused() == name:
                # What has the focus is seen to have it.
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none"
                return
        raise AssertionError(f"{name} is not reached with Tab")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the content"
    tab_to("question")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator(".hit").count() == 30
    tab_to("DSL that was sent")
    page.keyboard.press("Enter")
    assert page.locator(".dsl pre").first.is_visible()
    tab_to("Copy DSL")
    page.keyboard.press("Enter")
    page.wait_for_selector(".copy:text('Copied')")
    page.evaluate("document.getElementById('tab-search').focus()")
    page.keyboard.press("ArrowRight")
    assert focused() == "tab-ingest"
    assert page.locator("#panel-ingest").is_visible()
    tab_to("into")
    page.keyboard.type(fresh)
    tab_to("lines")
    page.keyboard.type(LINES[0])
    tab_to("send")
    page.keyboard.press("Enter")
    ended(page)
    page.evaluate("document.getElementById('tab-ingest').focus()")
    page.keyboard.press("End")
    assert focused() == "tab-indexes"
    page.keyboard.press("Home")
    assert focused() == "tab-search"
    page.keyboard.press("ArrowLeft")
    assert focused() == "tab-indexes"


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone(browser: Any, at: str, fresh: str, width: int) -> None:
    phone = {"viewport": {"width": width, "height": 740}, "has_touch": True, "is_mobile": True}
    with opened(browser, at, device_scale_factor=2, **phone) as (page, _):

        def fits() -> None:
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width
            small = page.evaluate("""[...document.querySelectorAll("button, input, select, summary")].filter((one) =>
                one.offsetParent && !one.closest(".unseen") && one.getBoundingClientRect().height < 16).length""")
            assert small == 0

        page.goto("/")
        page.wait_for_selector("#facts li")
        fits()
        page.get_by_role("checkbox", name="Conversation").check()
        ask(page)
        fits()
        page.get_by_role("checkbox", name="Conversation").uncheck()
        page.get_by_text("Options", exact=True).first.click()
        fits()
        page.get_by_text("Options", exact=True).first.click()
        ask(page)
        if width == 390:
            shoot(page, "page-phone")
        page.locator(".column.sparse .hit summary").first.click()
        page.locator(".column.sparse .dsl summary").click()
        fits()
        page.get_by_role("group", name="Go to a column").get_by_role("button", name="Hybrid").click()
        assert page.locator(".column.hybrid h3").bounding_box()["y"] < 300
        ingest(page, fresh, "\n".join(LINES))
        ended(page)
        page.wait_for_selector("#letter-rows tr")
        fits()
        page.get_by_role("tab", name="Indexes").click()
        fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_findings(browser: Any, at: str, scheme: str, fresh: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    with opened(browser, at, color_scheme=scheme, reduced_motion="reduce") as (page, watch):

        def check() -> None:
            found = axe.Axe().run(page).response
            assert len(found["passes"]) > 10
            bad = [
                (
                    one["id"],
                    one["impact"],
                    [node["target"] for node in one["nodes"]][:5],
                    one["nodes"][0]["failureSummary"],
                )
                for one in found["violations"]
            ]
            assert bad == []

        watch.allowed += ["400 (Bad Request)"]
        page.goto("/")
        page.wait_for_selector("#facts li")
        check()
        page.get_by_role("checkbox", name="Conversation").check()
        ask(page)
        page.locator(".column.sparse .hit summary").first.click()
        page.locator(".column.sparse .dsl summary").click()
        page.get_by_text("Options", exact=True).first.click()
        check()
        page.get_by_label("Prune").fill("magic=1")
        ask(page)
        check()
        ingest(page, fresh, "\n".join(LINES))
        ended(page)
        page.wait_for_selector("#letter-rows tr")
        check()
        page.get_by_role("tab", name="Indexes").click()
        page.wait_for_selector(".card")
        check()
        assert page.evaluate("getComputedStyle(document.querySelector('button.main')).transitionDuration") == "0s"
        page.goto("/docs")
        page.wait_for_selector("details")
        page.locator("summary").first.click()
        check()
        page.goto("/")
        page.wait_for_selector("#facts li")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(246, 247, 248)" if scheme == "light" else "rgb(20, 23, 26)"
        )
        # The check finds what is wrong.
        page.evaluate("document.querySelector('main').append(document.createElement('button'))")
        with pytest.raises(AssertionError, match="button-name"):
            check()
