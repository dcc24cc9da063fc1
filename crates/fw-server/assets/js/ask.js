// Talks to the API, as the command line does, with the cookie of the session.
export class Problem extends Error {
  constructor(status, body) {
    super(body.title || `the server answers ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.detail = body.detail || "";
  }
  get text() { return this.detail ? `${this.message}\n${this.detail}` : this.message; }
}

export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, { title: "the server cannot be reached", detail: "nothing was changed, as far as this page knows; try again" });
  }
  const text = await answer.text();
  let read = null;
  try { read = text ? JSON.parse(text) : null; } catch { read = null; }
  if (!answer.ok) throw new Problem(answer.status, read || {});
  return read;
}
