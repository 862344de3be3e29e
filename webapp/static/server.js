// Questions to the server: the token that every change carries, and errors as sentences.
export const LOST = "The connection to the server was lost.";
const ODD = "The server gave an answer that cannot be read.";
const LOGGED_OUT = "You are logged out.";

export class ServerError extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

let tokenIsOld = false;

// After a new login in another tab the page's token is no longer good; the page itself, asked again, has the new one.
export async function changeHeaders() {
  if (tokenIsOld) await renewToken();
  const said = (name) => document.querySelector(`meta[name=${name}]`)?.content;
  const headers = { "X-CSRFToken": said("csrf-token"), "X-Asker": said("asker") };
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value));
}

async function renewToken() {
  const answer = await fetch(location.href).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("meta[name=csrf-token]");
  const ours = document.querySelector("meta[name=csrf-token]");
  if (fresh && ours) ours.content = fresh.content;
  tokenIsOld = false;
}

// Whether an answer may mean that the token is no longer good; the next change then asks for a new one.
export function doubtsToken(status) {
  tokenIsOld ||= [400, 401, 403].includes(status);
  return status === 400 || status === 403;
}

// The error of an answer that is no success.
export function errorOf(status, body) {
  if (status === 401) return new ServerError(LOGGED_OUT, status);
  return new ServerError(body?.error || ODD, status);
}

export async function ask(method, url, { json, keepalive = false, isSecond = false } = {}) {
  const headers = method === "GET" ? {} : await changeHeaders();
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  const answer = await fetch(url, { method, headers, body, keepalive }).catch(() => { throw new ServerError(LOST); });
  if (doubtsToken(answer.status) && method !== "GET" && !isSecond) {
    return ask(method, url, { json, keepalive, isSecond: true });
  }
  const document = answer.status === 204 ? {} : await answer.json().catch(() => null);
  if (!answer.ok || document === null) throw errorOf(answer.status, document);
  return document;
}

// Shows a sentence, and the way to the login where that helps; in a new tab, so that nothing here is lost.
export function tell(place, error, before = "") {
  place.replaceChildren(`${before}${error.message} `);
  if (error.status !== 401) return;
  const link = Object.assign(document.createElement("a"), {
    href: "/login", target: "_blank", rel: "noopener", textContent: "Log in, then try again",
  });
  place.append(link, ".");
}

// crypto.randomUUID exists only on https and localhost.
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [0, 8, 12, 16, 20].map((start, n) => hex.slice(start, [8, 12, 16, 20, 32][n])).join("-");
}
