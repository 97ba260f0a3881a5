// The form that asks: a question or a conversation, of one index, in up to three ways.

import { address, keep } from "./address.js";
import { COLUMNS, askAll } from "./columns.js";
import { conversing, remember, startConversation, withEarlier } from "./conversation.js";
import { byId, element } from "./dom.js";
import { factsLine } from "./facts.js";
import { problemBox } from "./problem.js";
import { Problem } from "./api.js";

let known = [];

const chosenIndex = () => known.find((one) => one.name === byId("index").value);

const showFacts = () => {
  const index = chosenIndex();
  byId("facts").replaceChildren(...(index ? factsLine(index) : []));
};

export const choose = (name) => {
  byId("index").value = name;
  keep({ index: name });
  showFacts();
};

// The indexes that there are; the one that was chosen stays, where it is still there.
export const setIndexes = (indexes) => {
  const wanted = byId("index").value || address().get("index");
  known = indexes;
  byId("index").replaceChildren(...indexes.map(({ name }) => element("option", { value: name, textContent: name })));
  byId("none").hidden = indexes.length > 0;
  byId("ask").disabled = indexes.length === 0;
  if (indexes.length) choose(indexes.some(({ name }) => name === wanted) ? wanted : indexes[0].name);
  else showFacts();
};

const fault = (field, detail) => {
  field.setAttribute("aria-invalid", "true");
  byId("results").replaceChildren(problemBox(new Problem({ title: "NotAsked", detail })));
  field.closest("details")?.setAttribute("open", "");
  field.focus();
};

const readFilter = () => {
  const text = byId("filter").value.trim();
  if (!text) return undefined;
  const read = JSON.parse(text);
  if (typeof read !== "object" || read === null || Array.isArray(read)) throw new SyntaxError("it is no object");
  return read;
};

const submit = (event) => {
  event?.preventDefault();
  const question = byId("question").value.trim();
  for (const field of [byId("question"), byId("filter"), byId("size")]) field.removeAttribute("aria-invalid");
  const index = chosenIndex();
  if (!index) return;
  if (!question) {
    fault(byId("question"), "There is no question yet: type one above.");
    return;
  }
  const asked = { size: byId("size").valueAsNumber };
  if (!byId("size").checkValidity() || Number.isNaN(asked.size)) {
    fault(byId("size"), "The number of hits is a whole number from 1 to 100.");
    return;
  }
  try {
    const filter = readFilter();
    if (filter) asked.filter = filter;
  } catch (error) {
    fault(byId("filter"), `The filter is not a JSON object, like {"term": {"subject": "cooking"}}: ${error.message}`);
    return;
  }
  if (conversing()) {
    asked.turns = withEarlier(question);
    asked.conversation = byId("form").value;
    remember(question);
    byId("question").value = "";
    keep({ q: "" });
  } else {
    asked.text = question;
    keep({ q: question });
  }
  const options = { fusion: byId("fusion").value, hybrid: byId("hybrid").value.trim(), prune: byId("prune").value.trim() };
  const chosen = COLUMNS.map(({ name }) => name).filter((name) => byId(`with-${name}`).checked);
  askAll(index, asked, options, chosen.length ? chosen : ["sparse"]);
};

export const startSearch = () => {
  byId("search-form").addEventListener("submit", submit);
  byId("index").addEventListener("change", () => choose(byId("index").value));
  startConversation();
  byId("question").value = address().get("q") ?? "";
};

// What the address says is asked at once.
export const askAddress = () => {
  if (byId("question").value && chosenIndex()) submit();
};
