// A text with its words marked, as the explanation of a hit has them.

import { element } from "./dom.js";

const LONG = 360;
const BEFORE = 80;

// The stretches of a text that carry tokens, in order. Places count Unicode characters, not UTF-16 units.
export const stretchesOf = (tokens) => {
  const found = new Map();
  for (const token of tokens) {
    for (const [start, end] of token.words) {
      const known = found.get(start) ?? { start, end, tokens: [] };
      known.tokens.push(token);
      found.set(start, known);
    }
  }
  const listed = [...found.values()].sort((one, other) => one.start - other.start);
  for (const one of listed) one.weight = one.tokens.reduce((sum, token) => sum + Math.max(0, token.contribution), 0);
  return listed;
};

const mark = (text, stretch, most) => {
  const said = stretch.tokens.map((token) => `${token.token} ${token.contribution.toFixed(3)}`).join(", ");
  const made = element("mark", { textContent: text, title: said });
  made.style.setProperty("--share", String(0.25 + 0.75 * (stretch.weight / most)));
  made.dataset.tokens = JSON.stringify(stretch.tokens.map((token) => token.token));
  return made;
};

// The characters from `begin` to before `end`, with the stretches among them marked.
export const marked = (characters, begin, end, stretches) => {
  const most = Math.max(...stretches.map((one) => one.weight), Number.MIN_VALUE);
  const parts = [];
  let done = begin;
  for (const stretch of stretches) {
    if (stretch.start < done || stretch.end > end) continue;
    parts.push(characters.slice(done, stretch.start).join(""));
    parts.push(mark(characters.slice(stretch.start, stretch.end).join(""), stretch, most));
    done = stretch.end;
  }
  parts.push(characters.slice(done, end).join(""));
  return parts.filter((part) => part !== "");
};

// The same as a paragraph; of a long text the part around its first mark, until all of it is wanted.
export const paragraph = (characters, begin, stretches) => {
  const made = element("p", { className: "text" });
  const whole = () => made.replaceChildren(...marked(characters, begin, characters.length, stretches));
  if (characters.length - begin <= LONG * 1.25) {
    whole();
    return made;
  }
  const first = stretches.find((one) => one.start >= begin)?.start ?? begin;
  const from = first - begin <= LONG - BEFORE ? begin : first - BEFORE;
  const to = Math.min(characters.length, from + LONG);
  const more = element("button", { type: "button", className: "plain", textContent: "Show the whole text" });
  more.addEventListener("click", () => { whole(); made.tabIndex = -1; made.focus(); });
  made.append(from > begin ? "… " : "", ...marked(characters, from, to, stretches), to < characters.length ? " … " : " ", more);
  return made;
};
