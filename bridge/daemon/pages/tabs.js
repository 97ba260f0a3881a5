// Tabs as the ARIA Authoring Practices have them: arrows, Home and End move, and what is reached is shown.

import { address, keep } from "./address.js";

const all = () => [...document.querySelectorAll('[role="tab"]')];

export const show = (name) => {
  for (const tab of all()) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  keep({ tab: name === "search" ? "" : name });
  document.dispatchEvent(new CustomEvent("tab", { detail: name }));
};

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

export const startTabs = () => {
  const tabs = all();
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => show(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const to = { Home: 0, End: tabs.length - 1 }[event.key] ?? (place + STEPS[event.key] + tabs.length) % tabs.length;
      if (Number.isNaN(to)) return;
      event.preventDefault();
      tabs[to].focus();
      tabs[to].click();
    });
  });
  const wanted = address().get("tab");
  show(tabs.some((tab) => tab.id === `tab-${wanted}`) ? wanted : "search");
};
