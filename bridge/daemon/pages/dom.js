// Elements. What a document or a daemon says is only ever set as text: nothing of it becomes markup.

export const byId = (id) => document.getElementById(id);

// Names with a hyphen are attributes, the others properties.
export const element = (name, properties = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child != null));
  return made;
};

export const json = (value) => JSON.stringify(value, null, 2);

export const number = (value) => Number(value).toLocaleString("en-US");

export const score = (value) => Number(value).toFixed(3);

// The number as it is shown, and as it is.
export const data = (value, shown = score(value)) => element("data", { value: String(value), textContent: shown });

export const busy = (where, is) => where.setAttribute("aria-busy", String(is));

// What is said to whoever does not see the page change.
export const say = (text) => { byId("status").textContent = text; };
