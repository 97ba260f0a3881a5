// One hit: its text with marked words, what each token made of its score, and the rest in a fold.

import { data, element, json, number, score } from "./dom.js";
import { marked, paragraph, stretchesOf } from "./marked.js";

const SHOWN = 5;

const bar = (share) => {
  const made = element("td", { className: "bar", "aria-hidden": "true" }, element("span"));
  made.firstChild.style.setProperty("--share", String(Math.max(0, share)));
  return made;
};

const row = (token, most, ...more) => {
  const made = element("tr", {},
    element("th", { scope: "row", textContent: token.token }), ...more,
    element("td", {}, data(token.contribution)), bar(token.contribution / most));
  made.dataset.token = token.token;
  return made;
};

const table = (name, head, rows, foot) => element("table", { className: "tokens" },
  element("caption", { className: "unseen", textContent: name }),
  element("thead", { className: head.plain ? "unseen" : "" },
    element("tr", {}, ...head.names.map((text) => element("th", { scope: "col", textContent: text })))),
  element("tbody", {}, ...rows), foot);

const bars = (tokens, most) => {
  const rows = tokens.slice(0, SHOWN).map((token) => row(token, most));
  return table("What the heaviest tokens made of the score", { plain: true, names: ["token", "made", "bar"] }, rows);
};

const weights = (tokens, most, sumIs) => {
  const rows = tokens.map((token) => row(token, most,
    element("td", {}, data(token.query_weight)), element("td", {}, data(token.document_weight))));
  const sum = tokens.reduce((total, token) => total + token.contribution, 0);
  const foot = element("tfoot", {}, element("tr", {},
    element("th", { scope: "row", colSpan: 3, textContent: sumIs }), element("td", {}, data(sum)), element("td")));
  return table("All tokens", { names: ["token", "in the query", "in the document", "made", "of the most"] }, rows, foot);
};

// The title, where the text begins with a field of its own for it, and the rest.
const textOf = (hit, tokens, fields) => {
  const { text } = hit.explanation;
  const heading = element("h4");
  if (text === null) {
    heading.textContent = hit.id;
    return [heading];
  }
  const characters = [...text];
  const stretches = stretchesOf(tokens);
  const title = fields.length > 1 ? hit.source[fields[0]] : undefined;
  const titled = typeof title === "string" && text.startsWith(`${title}\n`);
  const begin = titled ? [...title].length + 1 : 0;
  heading.append(...(titled ? marked(characters, 0, begin - 1, stretches) : [hit.id]));
  return [heading, paragraph(characters, begin, stretches)];
};

const passageOf = (hit) => {
  const best = hit.passages?.[0];
  if (!best) return "";
  return best.id ? `best passage ${best.id}` : `best passage: characters ${number(best.start)} to ${number(best.end)}`;
};

// `most` is the largest contribution of the column, so that bars of different hits can be compared.
export const hitItem = (hit, rank, most, column, fields) => {
  const { tokens } = hit.explanation;
  const [heading, ...text] = textOf(hit, tokens, fields);
  const about = element("p", { className: "soft about" }, element("span", { className: "id", textContent: hit.id }));
  if (passageOf(hit)) about.append(` · ${passageOf(hit)}`);
  const made = element("li", { className: "hit" },
    element("div", { className: "head" }, element("span", { className: "rank", textContent: rank, "aria-hidden": "true" }),
      heading, element("span", { className: "score", title: "score" }, data(hit.score))),
    about, ...text);
  if (tokens.length) made.append(bars(tokens, most));
  else made.append(element("p", { className: "soft", textContent: column.noTokens }));
  const left = tokens.length > SHOWN ? `${tokens.length - SHOWN} more tokens, ` : "";
  const fold = element("details", {}, element("summary", { textContent: `${left}weights and fields` }));
  // Made when it is opened: a page of hits has thousands of rows otherwise.
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.children.length > 1) return;
    if (tokens.length) {
      const wide = element("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: "All tokens" });
      wide.append(weights(tokens, most, column.sumIs(score(hit.score))));
      fold.append(wide);
    }
    fold.append(element("pre", { tabIndex: 0, role: "group", ariaLabel: "Fields", textContent: json(hit.source) }));
  });
  made.append(fold);
  made.dataset.id = hit.id;
  made.addEventListener("mouseover", (event) => point(made, event.target.closest("[data-token]")?.dataset.token));
  made.addEventListener("mouseleave", () => point(made, undefined));
  return made;
};

// Show which words carry the token under the mouse.
const point = (where, token) => {
  for (const word of where.querySelectorAll("mark")) {
    word.classList.toggle("pointed", token !== undefined && JSON.parse(word.dataset.tokens).includes(token));
  }
};
