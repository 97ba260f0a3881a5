// Bring documents in: pasted, or a file of JSON lines.

import { Problem, ask } from "./api.js";
import { byId, element, say } from "./dom.js";
import { follow, listJobs } from "./jobs.js";
import { problemBox } from "./problem.js";

const file = () => byId("file").files[0];

const describeFile = () => {
  const chosen = file();
  byId("unchoose").hidden = !chosen;
  byId("lines").disabled = Boolean(chosen);
  byId("lines-note").textContent = chosen
    ? `${chosen.name} is taken; what is pasted here is not.`
    : "One JSON object a line, each with an id and text.";
};

const query = () => {
  const found = new URLSearchParams({ index: byId("into").value.trim() });
  const taken = { model: "with-model", id_field: "id-field", text_fields: "text-fields" };
  for (const [name, id] of Object.entries(taken)) {
    const value = byId(id).value.split(",").map((one) => one.trim()).filter(Boolean).join(",");
    if (value) found.set(name, value);
  }
  if (byId("from-content").checked) found.set("id_from", "content");
  return found;
};

const refuse = (field, detail) => {
  field.setAttribute("aria-invalid", "true");
  byId("ingest-problem").replaceChildren(problemBox(new Problem({ title: "NotSent", detail })));
  field.focus();
};

const submit = async (event) => {
  event.preventDefault();
  for (const field of [byId("into"), byId("lines")]) field.removeAttribute("aria-invalid");
  const lines = file() ?? byId("lines").value;
  if (!byId("into").value.trim()) {
    refuse(byId("into"), "Name an index; one that is not there yet is made.");
    return;
  }
  if (!file() && !lines.trim()) {
    refuse(byId("lines"), "There are no documents yet: paste some, or choose a file.");
    return;
  }
  byId("ingest-problem").replaceChildren();
  byId("send").disabled = true;
  say("Sending the documents …");
  try {
    follow(await ask(`/v1/ingest?${query()}`, { lines }));
  } catch (problem) {
    byId("ingest-problem").replaceChildren(problemBox(problem, () => byId("ingest-form").requestSubmit()));
    say("The documents were not taken.");
  } finally {
    byId("send").disabled = false;
  }
};

export const ingestInto = (name) => { byId("into").value = name; };

export const setChoices = (indexes, models) => {
  byId("known-indexes").replaceChildren(...indexes.map(({ name }) => element("option", { value: name })));
  byId("with-model").replaceChildren(
    element("option", { value: "", textContent: "the index's own, else one learned from these documents" }),
    ...models.map((name) => element("option", { value: name, textContent: name })));
};

export const startIngest = () => {
  byId("ingest-form").addEventListener("submit", submit);
  byId("file").addEventListener("change", describeFile);
  byId("unchoose").addEventListener("click", () => {
    byId("file").value = "";
    describeFile();
    byId("file").focus();
  });
  byId("from-content").addEventListener("change", () => { byId("id-field").disabled = byId("from-content").checked; });
  document.addEventListener("mend", ({ detail }) => {
    byId("file").value = "";
    describeFile();
    byId("lines").value = detail;
    byId("lines").focus();
  });
  document.addEventListener("tab", ({ detail }) => { if (detail === "ingest") listJobs(); });
  describeFile();
};
