// Requests to the server: the headers of every change, and errors with a message for the reader.
export const CONNECTION_LOST = "The connection to the server was lost.";
const UNREADABLE = "The server sent a response that cannot be read.";
const LOGGED_OUT = "You are logged out.";

export class ServerError extends Error {
  constructor(message, status = 0, reason = null) {
    super(message);
    Object.assign(this, { status, reason });
  }
}

// The address of a page, "" being the first, under whatever URL prefix this file was loaded from.
export const address = (path) => new URL(`../${path}`, import.meta.url).pathname;

let isTokenOld = false;

// After a new login in another tab the CSRF token of this page is invalid; the page, fetched again, has the new one.
export async function changeHeaders() {
  if (isTokenOld) await renewToken();
  const meta = (name) => document.querySelector(`meta[name=${name}]`)?.content;
  const headers = { "X-CSRFToken": meta("csrf-token"), "X-Account": meta("account") };
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value));
}

async function renewToken() {
  const response = await fetch(location.href).catch(() => null);
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const [renewed, own] = [page, document].map((place) => place.querySelector("meta[name=csrf-token]"));
  if (renewed && own) own.content = renewed.content;
  isTokenOld = false;
}

// Whether a status may mean that the token is invalid, so that one more try is worth it; the next change renews it.
export function suspectToken(status) {
  isTokenOld ||= [400, 401, 403].includes(status);
  return status === 400 || status === 403;
}

export function errorOf(status, body) {
  if (status === 401) return new ServerError(LOGGED_OUT, status);
  return new ServerError(body?.error || UNREADABLE, status, body?.reason ?? null);
}

export async function fetchJson(method, url, { json, keepalive = false, isSecondTry = false } = {}) {
  const headers = method === "GET" ? {} : await changeHeaders();
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  const response = await fetch(url, { method, headers, body, keepalive })
    .catch(() => { throw new ServerError(CONNECTION_LOST); });
  if (suspectToken(response.status) && method !== "GET" && !isSecondTry) {
    return fetchJson(method, url, { json, keepalive, isSecondTry: true });
  }
  const content = response.status === 204 ? {} : await response.json().catch(() => null);
  if (!response.ok || content === null) throw errorOf(response.status, content);
  return content;
}

// crypto.randomUUID exists only on https and localhost.
export function newIdempotencyKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [0, 8, 12, 16, 20].map((start, n) => hex.slice(start, [8, 12, 16, 20, 32][n])).join("-");
}
