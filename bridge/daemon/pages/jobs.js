// Jobs: how far one is, how it ended, what of it could not go in; and the last ones.

import { ask } from "./api.js";
import { byId, element, json, number, say } from "./dom.js";
import { problemBox } from "./problem.js";

const EVERY = 400;
const LETTERS = 50;
const WORDS = { queued: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };
const COUNTS = ["source", "indexed", "unchanged", "deleted", "dead", "retried"];

const ended = (job) => !["queued", "running"].includes(job.state);

let followed = "";

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

// The counts of an ingest; of an evaluation whatever was measured.
const counts = (job) => {
  const found = job.result ?? { ...job.progress, ...job.progress.effort };
  const own = job.result ? COUNTS : ["documents", "queued", "in_flight", "retried"];
  const names = (job.kind === "ingest" ? own : Object.keys(found)).filter((name) => typeof found[name] === "number");
  return element("dl", { className: "counts" }, ...names.map((name) =>
    element("div", { className: name === "dead" && found[name] ? "bad" : "" },
      element("dt", { textContent: name.replace("_", " ") }),
      element("dd", { textContent: Number.isInteger(found[name]) ? number(found[name]) : found[name].toFixed(3) }))));
};

const progressBar = (job) => {
  const { queries, of, bytes_read: read = queries, bytes_total: total = of } = job.progress;
  const bar = element("progress", { ariaLabel: "How far the job is", max: 1 });
  if (job.state === "done") bar.value = 1;
  else if (total) bar.value = Math.min(1, read / total);
  else if (ended(job)) bar.value = 0;
  return bar;
};

const seconds = (job) => {
  const span = (Date.parse(job.ended ?? new Date().toISOString()) - Date.parse(job.started ?? job.created)) / 1000;
  return `${Math.max(0, span).toFixed(1)} s`;
};

const button = (text, act) => {
  const made = element("button", { type: "button", className: "small", textContent: text });
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await act();
    } catch (problem) {
      byId("job-problem").replaceChildren(problemBox(problem));
      made.disabled = false;
    }
  });
  return made;
};

const act = (job, what) => async () => follow(await ask(`/v1/jobs/${job.id}/${what}`, { method: "POST" }));

const buttonsOf = (job) => {
  if (!ended(job)) return [button("Cancel", act(job, "cancel"))];
  const found = job.state === "done" ? [] : [button("Go on where it stopped", act(job, "resume"))];
  if (job.kind === "ingest" && job.state === "done") {
    found.push(button(`Search ${job.index}`, () => document.dispatchEvent(new CustomEvent("search-in", { detail: job.index }))));
  }
  return found;
};

// What changes often is not read aloud; that the state has changed is.
const draw = (job) => {
  byId("job").hidden = false;
  byId("job-state").textContent = WORDS[job.state];
  byId("job-state").className = `state ${job.state}`;
  byId("job-title").textContent = `${job.kind === "ingest" ? "Into" : "Measuring"} ${job.index}`;
  byId("job-time").textContent = `${job.progress.stage ?? "waiting"} · ${seconds(job)} · job ${job.id}`;
  byId("job-counts").replaceChildren(progressBar(job), counts(job));
  byId("job-said").textContent = job.said.join("\n");
  byId("job-said").hidden = job.said.length === 0;
};

const letterRow = (letter) => element("tr", {},
  element("td", { textContent: number(letter.line) }),
  element("td", { textContent: letter.id ?? "none" }),
  element("td", { textContent: letter.reason }),
  element("td", {}, element("details", {}, element("summary", { textContent: "show" }),
    element("pre", { tabIndex: 0, role: "group", ariaLabel: `Document of line ${letter.line}`,
      textContent: typeof letter.document === "string" ? letter.document : json(letter.document) }))));

const asLine = ({ document: held }) => (typeof held === "string" ? held.trimEnd() : JSON.stringify(held));

const showLetters = async (job, before = []) => {
  const { letters: next, total } = await ask(`/v1/jobs/${job.id}/dead-letters?from=${before.length}&size=${LETTERS}`);
  if (job.id !== followed) return;
  const letters = [...before, ...next];
  byId("letters").hidden = total === 0;
  byId("letters-title").textContent = `${number(total)} could not go in`;
  byId("letter-rows").replaceChildren(...letters.map(letterRow));
  const left = total - letters.length;
  const more = left > 0 && button(`Show more (${number(left)} left)`, () => showLetters(job, letters));
  const mend = button("Mend these and send them again", () => {
    document.dispatchEvent(new CustomEvent("mend", { detail: letters.map(asLine).join("\n") }));
    mend.disabled = false;
  });
  byId("letter-buttons").replaceChildren(...(more ? [more] : []), mend);
};

const finish = async (job) => {
  byId("job-buttons").replaceChildren(...buttonsOf(job));
  if (job.error) {
    byId("job-problem").replaceChildren(element("div", { className: "problem" },
      element("strong", { textContent: "The job failed" }), element("p", { textContent: job.error })));
  }
  const dead = job.result?.dead ?? 0;
  say(`The job is ${WORDS[job.state]}${dead ? `; ${number(dead)} documents could not go in` : ""}.`);
  document.dispatchEvent(new CustomEvent("job-ended", { detail: job }));
  await showLetters(job);
  await listJobs();
};

// Show a job until it has ended.
export const follow = async (job) => {
  followed = job.id;
  let now = job;
  let state = "";
  byId("job-problem").replaceChildren();
  byId("letters").hidden = true;
  for (;;) {
    draw(now);
    if (now.state !== state) {
      state = now.state;
      byId("job-buttons").replaceChildren(...buttonsOf(now));
      if (!ended(now)) say(`The job is ${WORDS[state]}.`);
    }
    if (ended(now)) break;
    await pause(EVERY);
    if (followed !== job.id) return;
    try {
      now = await ask(`/v1/jobs/${job.id}`);
      byId("job-problem").replaceChildren();
    } catch (problem) {
      byId("job-problem").replaceChildren(problemBox(problem));
      if (!problem.passes) return;
      await pause(1000 * (problem.wait || 1));
    }
    if (followed !== job.id) return;
  }
  try {
    await finish(now);
  } catch (problem) {
    byId("job-problem").replaceChildren(problemBox(problem, () => finish(now)));
  }
};

const jobItem = (job) => {
  const made = button(`${job.index}: ${WORDS[job.state]}`, async () => { follow(await ask(`/v1/jobs/${job.id}`)); made.disabled = false; });
  const dead = job.result?.dead ? `, ${number(job.result.dead)} dead` : "";
  const what = job.result?.indexed === undefined ? job.kind : `${number(job.result.indexed)} indexed${dead}`;
  return element("li", {}, made, ` ${what} · ${new Date(job.created).toLocaleString()}`);
};

export const listJobs = async () => {
  try {
    const { jobs } = await ask("/v1/jobs?size=8");
    byId("jobs").replaceChildren(...jobs.map(jobItem));
    byId("no-jobs").hidden = jobs.length > 0;
  } catch (problem) {
    byId("jobs").replaceChildren(element("li", {}, problemBox(problem, listJobs)));
  }
};
