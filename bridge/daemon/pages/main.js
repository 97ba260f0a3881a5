// The page: tabs, the key where one is asked for, and what all tabs know of the daemon.

import { ask, key } from "./api.js";
import { byId, say } from "./dom.js";
import { showAbout, showIndexes } from "./facts.js";
import { ingestInto, setChoices, startIngest } from "./ingest.js";
import { listJobs } from "./jobs.js";
import { problemBox } from "./problem.js";
import { askAddress, choose, setIndexes, startSearch } from "./search.js";
import { show, startTabs } from "./tabs.js";

let loading = Promise.resolve();

// An index that a job has just made is known when what is being loaded has come.
const searchIn = async (name) => {
  await loading;
  choose(name);
  show("search");
  byId("question").focus();
};

const ingestThere = (name) => {
  ingestInto(name);
  show("ingest");
  byId("lines").focus();
};

const loadNow = async () => {
  try {
    const [about, { indexes }] = await Promise.all([ask("/v1"), ask("/v1/indexes")]);
    byId("trouble").replaceChildren();
    showAbout(about);
    setIndexes(indexes);
    setChoices(indexes, about.models);
    showIndexes(indexes, { Search: searchIn, "Add documents": ingestThere });
    return true;
  } catch (problem) {
    byId("trouble").replaceChildren(...(problem.status === 401 ? [] : [problemBox(problem, load)]));
    return false;
  }
};

const load = () => (loading = loading.then(loadNow));

const startKey = () => {
  const form = byId("key-form");
  const drawn = () => {
    byId("key-note").textContent = key.get() ? "A key is kept until this tab is closed." : "";
    byId("forget-key").hidden = !key.get();
  };
  document.addEventListener("key-needed", ({ detail }) => {
    const first = form.hidden;
    form.hidden = false;
    drawn();
    byId("key-why").textContent = key.get() ? detail.message : "This daemon asks for an API key (bridge keys add makes one).";
    if (first) byId("key").focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    key.set(byId("key").value.trim());
    byId("key").value = "";
    if (!(await load())) return;
    drawn();
    byId("key-why").textContent = "The key is taken.";
    say("The key is taken.");
    if (!byId("panel-ingest").hidden) listJobs();
    byId("question").focus();
  });
  byId("forget-key").addEventListener("click", () => {
    key.set("");
    location.reload();
  });
  form.hidden = !key.get();
  drawn();
};

startKey();
startSearch();
startIngest();
startTabs();
document.addEventListener("search-in", ({ detail }) => searchIn(detail));
document.addEventListener("job-ended", load);
byId("reload").addEventListener("click", load);
byId("to-ingest").addEventListener("click", () => { show("ingest"); byId("into").focus(); });
if (await load()) askAddress();
