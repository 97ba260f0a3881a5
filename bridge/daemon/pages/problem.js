// A Problem, for people.

import { element } from "./dom.js";

const words = (title) => title.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase().replace(/^./, (first) => first.toUpperCase());

const sentence = (text) => {
  const begun = text.replace(/^[a-z]+(?=[\s,])/, (word) => word[0].toUpperCase() + word.slice(1));
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
};

// `again` is what a button does that asks the same once more.
export const problemBox = (problem, again) => {
  const status = problem.status ? ` (${problem.status})` : "";
  const box = element("div", { className: "problem", role: "alert" },
    element("strong", { textContent: `${words(problem.title)}${status}` }),
    element("p", { textContent: sentence(problem.message) }));
  if (problem.wait) box.append(element("p", { textContent: `It asks to wait for ${problem.wait} s.` }));
  if (problem.request) box.append(element("p", { className: "soft", textContent: `Request ${problem.request}` }));
  if (again && problem.passes) {
    const button = element("button", { type: "button", textContent: "Try again" });
    button.addEventListener("click", again);
    box.append(button);
  }
  return box;
};
