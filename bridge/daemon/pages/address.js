// What the page shows, in the address behind the #: it can be kept and shared, and no server sees it.

export const address = () => new URLSearchParams(location.hash.slice(1));

export const keep = (values) => {
  const found = address();
  for (const [name, value] of Object.entries(values)) {
    if (value) found.set(name, value);
    else found.delete(name);
  }
  history.replaceState(null, "", `#${found}`);
};
