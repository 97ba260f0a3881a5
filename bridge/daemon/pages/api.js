// The daemon's interface over HTTP. A key is kept for as long as the browser's tab is, and sent to this daemon alone.

const KEY = "api-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export const authorization = () => (key.get() ? { authorization: `Bearer ${key.get()}` } : {});

// A request that was not answered with what it asked for.
export class Problem extends Error {
  constructor({ title, status = 0, detail, request_id: request = "" }, wait = 0) {
    super(detail);
    Object.assign(this, { title, status, request, wait });
  }

  // Whether the same request may be answered in a moment.
  get passes() {
    return [0, 429, 502, 503, 504].includes(this.status);
  }
}

const asProblem = async (answer) => {
  const wait = Number(answer.headers.get("retry-after")) || 0;
  try {
    return new Problem(await answer.json(), wait);
  } catch {
    return new Problem({ title: answer.statusText || "Error", status: answer.status, detail: "no reason was given" }, wait);
  }
};

// Ask; what is answered, or a Problem. `body` is sent as JSON, `lines` (text or a file) as NDJSON.
export const ask = async (path, { method, body, lines, signal } = {}) => {
  const headers = { ...authorization() };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (lines !== undefined) headers["content-type"] = "application/x-ndjson";
  const sent = lines ?? (body === undefined ? undefined : JSON.stringify(body));
  let answer;
  try {
    answer = await fetch(path, { method: method ?? (sent === undefined ? "GET" : "POST"), headers, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "NotReached", detail: "The daemon does not answer. Is it still running?" });
  }
  if (!answer.ok) {
    const problem = await asProblem(answer);
    if (problem.status === 401) document.dispatchEvent(new CustomEvent("key-needed", { detail: problem }));
    throw problem;
  }
  return answer.json();
};
