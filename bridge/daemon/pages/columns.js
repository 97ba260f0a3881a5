// The ways of asking that stand beside each other.

import { ask } from "./api.js";
import { busy, byId, element, json, number, say } from "./dom.js";
import { hitItem } from "./hit.js";
import { problemBox } from "./problem.js";

const NAMES = { bm25: "BM25", dense: "dense", sparse: "sparse" };

export const COLUMNS = [
  {
    name: "bm25",
    title: "BM25",
    asks: () => ({ ranked_by: "bm25" }),
    says: (index) => `The words of ${index.model.text_fields?.join(", ") || "all fields"}, as the engine analyses them.`,
    noTokens: "The engine's explanation names no term.",
    sumIs: (score) => `together; the score is ${score}`,
  },
  {
    name: "sparse",
    title: "Sparse",
    asks: (index, options) => (options.prune ? { prune: options.prune } : {}),
    says: (index) => `The vectors in ${index.model.passage_field ? `${index.model.passage_field}.` : ""}${index.model.field}.`,
    noTokens: "No token of the question is in it.",
    sumIs: (score) => `together; the score is ${score}`,
  },
  {
    name: "hybrid",
    title: "Hybrid",
    asks: (index, options) => ({
      hybrid: options.hybrid || hybridOf(index),
      ...(options.fusion === "linear" ? {} : { fusion: options.fusion }),
      ...(options.prune ? { prune: options.prune } : {}),
    }),
    says: (index, options) => {
      const parts = (options.hybrid || hybridOf(index)).split(",").map((one) => NAMES[one.trim()] ?? one.trim());
      const named = parts.some((one) => one.startsWith("sparse")) ? parts : ["sparse", ...parts];
      const without = index.model.dense_encoder ? "" : " The index has no dense vectors.";
      return `${named.join(" + ")}, fused (${options.fusion === "rrf" ? "reciprocal ranks" : "weighted scores"}).${without} `
        + "Bars show the sparse part.";
    },
    noTokens: "Found by another part: no token of the question is in it.",
    sumIs: (score) => `together, of the sparse part; the fused score is ${score}`,
  },
];

const hybridOf = (index) => (index.model.dense_encoder ? "bm25,dense" : "bm25");

const copied = async (text, button) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page that did not come over HTTPS, or from this machine, has no clipboard of its own.
    const area = element("textarea", { value: text, className: "unseen", ariaLabel: "DSL" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  say("The DSL is copied.");
  setTimeout(() => { button.textContent = "Copy DSL"; }, 2000);
};

const dsl = (body) => {
  const text = json(body);
  const button = element("button", { type: "button", className: "small copy", textContent: "Copy DSL" });
  button.addEventListener("click", () => copied(text, button));
  const shown = element("pre", { tabIndex: 0, textContent: text, role: "group", ariaLabel: "DSL that was sent" });
  return element("div", { className: "dsl" },
    element("details", {}, element("summary", { textContent: "DSL that was sent" }), shown), button);
};

const emptyColumn = (column, index, options) => element("section", { className: `column ${column.name}`, "aria-labelledby": `c-${column.name}` },
  element("div", { className: "top" }, element("h3", { id: `c-${column.name}`, textContent: column.title }),
    element("p", { className: "soft counts" })),
  element("p", { className: "soft says", textContent: column.says(index, options) }),
  element("div", { className: "found" }, element("p", { className: "soft", textContent: "Asking …" })));

const fill = (section, column, found, index) => {
  const counts = section.querySelector(".counts");
  counts.textContent = `${number(found.hits.length)} ${found.hits.length === 1 ? "hit" : "hits"} · ${number(found.took)} ms`;
  if (found.pruned) counts.textContent += ` · ${found.pruned} tokens pruned`;
  if (found.dropped) counts.textContent += ` · ${found.dropped} tokens dropped`;
  const most = Math.max(...found.hits.flatMap((hit) => hit.explanation.tokens.map((token) => token.contribution)), Number.MIN_VALUE);
  const fields = index.model.text_fields ?? [];
  const items = found.hits.map((hit, place) => hitItem(hit, place + 1, most, column, fields));
  const list = items.length
    ? element("ol", { className: "hits" }, ...items)
    : element("p", { textContent: "Nothing found." });
  section.querySelector(".found").replaceChildren(dsl(found.body), list);
};

// Where the other columns have the same document.
const compare = (rankings) => {
  for (const [name, own] of rankings) {
    const others = rankings.filter(([other]) => other !== name);
    if (!others.length) continue;
    for (const [id, item] of own) {
      const said = others.map(([other, ranks]) => {
        const { title } = COLUMNS.find((column) => column.name === other);
        const place = [...ranks.keys()].indexOf(id) + 1;
        return element("span", { className: place ? `chip ${other}` : "chip", textContent: place ? `${title} ${place}` : `not in ${title}` });
      });
      item.querySelector(".about").append(...said);
    }
  }
};

const jumps = (columns) => columns.map((column) => {
  const link = element("button", { type: "button", className: "small", textContent: column.title });
  link.addEventListener("click", () => {
    const heading = byId(`c-${column.name}`);
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    heading.scrollIntoView({ block: "start" });
  });
  return link;
});

let under = new AbortController();

// Ask every chosen way; `asked` is what they have in common.
export const askAll = async (index, asked, options, chosen) => {
  under.abort();
  under = new AbortController();
  const { signal } = under;
  const columns = COLUMNS.filter((column) => chosen.includes(column.name));
  const results = byId("results");
  const sections = columns.map((column) => emptyColumn(column, index, options));
  busy(results, true);
  byId("jumps").replaceChildren(...(columns.length > 1 ? jumps(columns) : []));
  results.replaceChildren(...sections);
  say("Asking …");
  const ranked = new Map();
  const one = async (column, section) => {
    const body = { index: index.name, explain: true, ...asked, ...column.asks(index, options) };
    try {
      const found = await ask("/v1/search", { body, signal });
      fill(section, column, found, index);
      ranked.set(column.name, new Map([...section.querySelectorAll(".hit")].map((item) => [item.dataset.id, item])));
      return `${column.title} ${found.hits.length}`;
    } catch (problem) {
      if (signal.aborted) return "";
      const again = () => askAll(index, asked, options, chosen);
      section.querySelector(".found").replaceChildren(problemBox(problem, again));
      return `${column.title} failed`;
    }
  };
  const said = await Promise.all(columns.map((column, place) => one(column, sections[place])));
  if (signal.aborted) return;
  compare(columns.map(({ name }) => [name, ranked.get(name)]).filter(([, ranks]) => ranks));
  busy(results, false);
  say(`Hits: ${said.join(", ")}.`);
};
