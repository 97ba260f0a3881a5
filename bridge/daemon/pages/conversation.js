// The turns of a conversation: what was asked before, with its answers where they are known.

import { byId, element } from "./dom.js";

let turns = [];

export const conversing = () => byId("conversing").checked;

// What is sent for a question: all turns, oldest first, this one last.
export const withEarlier = (question) => [
  ...turns.map((turn) => ({ question: turn.question, ...(turn.answer.trim() ? { answer: turn.answer } : {}) })),
  { question },
];

export const remember = (question) => {
  turns = [...turns, { question, answer: "" }];
  draw();
};

const turnItem = (turn, place) => {
  const answer = element("input", { value: turn.answer, autocomplete: "off", placeholder: "the answer, if there was one" });
  answer.setAttribute("aria-label", `Answer to question ${place + 1}`);
  answer.addEventListener("input", () => { turn.answer = answer.value; });
  const remove = element("button", { type: "button", className: "small", textContent: "Remove" });
  remove.setAttribute("aria-label", `Remove question ${place + 1}`);
  remove.addEventListener("click", () => {
    turns = turns.filter((one) => one !== turn);
    draw();
    byId("question").focus();
  });
  return element("li", {}, element("span", { className: "asked", textContent: turn.question }), answer, remove);
};

const draw = () => {
  const on = conversing();
  byId("conversation").hidden = !on;
  byId("turns").replaceChildren(...turns.map(turnItem));
  byId("no-turns").hidden = turns.length > 0;
  byId("forget").disabled = turns.length === 0;
  byId("question-label").textContent = on && turns.length ? "Next question" : "Question";
};

export const startConversation = () => {
  byId("conversing").addEventListener("change", draw);
  byId("forget").addEventListener("click", () => {
    turns = [];
    draw();
    byId("question").focus();
  });
  draw();
};
