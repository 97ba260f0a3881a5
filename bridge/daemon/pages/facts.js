// What is known of indexes and their models.

import { byId, element, number } from "./dom.js";

const KEPT = { whole: "one vector a document", merge: "the maximum of a text's passages", nested: "a vector for each passage" };

const passages = (model) => KEPT[model.passages ?? "whole"];

// In one line, beside the search.
export const factsLine = ({ documents, model }) => [
  `${number(documents)} ${documents === 1 ? "document" : "documents"}`,
  model.document_encoder ?? model.space,
  `${model.kind}${model.passages ? `, ${passages(model)}` : ""}`,
  `text: ${model.text_fields?.join(", ") || "unknown"}`,
  model.dense_encoder ? `dense: ${model.dense_encoder}` : "no dense vectors",
].map((text) => element("li", { textContent: text }));

const ROWS = [
  ["Documents", ({ documents }) => number(documents)],
  ["Encodes documents", ({ model }) => model.document_encoder],
  ["Encodes questions", ({ model }) => model.query_encoders?.join(", ")],
  ["Vocabulary and weights", ({ model }) => model.space],
  ["Vector field", ({ model }) => `${model.passage_field ? `${model.passage_field}.` : ""}${model.field} (${model.kind})`],
  ["Text fields", ({ model }) => model.text_fields?.join(", ")],
  ["Holds", ({ model }) => passages(model)],
  ["Passages", ({ model }) => model.passage_tokens && `${model.passage_tokens} tokens, ${model.passage_overlap ?? 0} of them shared`],
  ["Pruned", ({ model }) => model.pruning],
  ["Dense vectors", ({ model }) => (model.dense_encoder ? `${model.dense_encoder}, in ${model.dense_field}` : "none")],
];

const card = (index, actions) => {
  const rows = ROWS.map(([name, of]) => [name, of(index)]).filter(([, value]) => value);
  const buttons = Object.entries(actions).map(([name, act]) => {
    const button = element("button", { type: "button", className: "small", textContent: name });
    button.setAttribute("aria-label", `${name}: ${index.name}`);
    button.addEventListener("click", () => act(index.name));
    return button;
  });
  return element("article", { className: "card" },
    element("div", { className: "top" }, element("h3", { textContent: index.name }), element("p", {}, ...buttons)),
    element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })])));
};

export const showIndexes = (indexes, actions) => {
  const cards = indexes.map((one) => card(one, actions));
  byId("cards").replaceChildren(...(cards.length ? cards : [element("p", { textContent: "There is no index yet." })]));
};

export const showAbout = (about) => {
  byId("engine").textContent = `${about.engine ?? "no engine"} · bridge ${about.version}`;
  const rows = [
    ["Engine", about.engine ?? "not reached"],
    ["Bridge", about.version],
    ["Models that can be named", about.models.join(", ") || "none but the indexes' own"],
  ];
  byId("about").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
};
