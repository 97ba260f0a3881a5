// The operations of openapi.json, each with its fields and a form that asks it.

import { authorization, key as kept } from "./api.js";
import { element } from "./dom.js";

const key = document.getElementById("key");
key.value = kept.get();
key.addEventListener("change", () => kept.set(key.value.trim()));

const kindOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kindOf).join(" | ");
  if (schema.type === "array") return `list of ${kindOf(schema.items)}`;
  return schema.type ?? "anything";
};

const fields = (description, schema) => {
  const found = schema.$ref ? description.components.schemas[schema.$ref.split("/").pop()] : schema;
  const rows = Object.entries(found?.properties ?? {}).map(([name, property]) =>
    element("tr", {},
      element("td", {}, element("code", { textContent: name })),
      element("td", { textContent: kindOf(property) }),
      element("td", { textContent: (found.required ?? []).includes(name) ? "required" : `default ${JSON.stringify(property.default)}` }),
    ));
  const head = element("tr", {}, ...["field", "kind", "if left out"].map((text) => element("th", { textContent: text, scope: "col" })));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
};

const form = (method, path, operation) => {
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const input = element("input", { name: parameter.name, required: Boolean(parameter.required) });
    return { parameter, input, label: element("label", {}, `${parameter.name} `, input, ` ${parameter.description} `) };
  });
  const takes = operation.requestBody?.content?.["application/json"];
  const body = takes ? element("textarea", { value: "{}", spellcheck: false, ariaLabel: "body" }) : null;
  const answer = element("pre", { hidden: true, tabIndex: 0 });
  const button = element("button", { type: "submit", textContent: "Ask" });
  const made = element("form", {}, ...inputs.map((one) => one.label), ...(body ? [body] : []), button, answer);
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    let target = path;
    const query = new URLSearchParams();
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    const headers = { ...authorization(), ...(body ? { "content-type": "application/json" } : {}) };
    const asked = [...query].length ? `${target}?${query}` : target;
    answer.hidden = false;
    try {
      const found = await fetch(asked, { method, headers, body: body?.value });
      const text = await found.text();
      let shown = text;
      try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: as it is */ }
      answer.textContent = `${found.status} ${found.statusText}\n${shown}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  return made;
};

const show = (description) => {
  const listed = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const summary = element("summary", {},
        element("code", { textContent: `${method.toUpperCase()} ${path}` }), ` ${operation.summary}`,
        ...(operation["x-scope"] ? [element("small", { textContent: ` (${operation["x-scope"]})` })] : []));
      const takes = operation.requestBody?.content?.["application/json"]?.schema;
      const parts = takes ? [fields(description, takes)] : [];
      return element("details", {}, summary, ...parts, form(method.toUpperCase(), path, operation));
    }));
  document.getElementById("operations").replaceChildren(...listed);
  document.getElementById("about").prepend(`Version ${description.info.version}. `);
};

show(await (await fetch("/openapi.json")).json());
