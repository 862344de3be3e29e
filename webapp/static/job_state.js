// The upload of one file as a state machine, and what to do with each response. No DOM in here.
import { CONNECTION_LOST, ServerError, errorOf } from "./server.js";

const MAX_BUSY_RETRIES = 20;
const MAX_LOST_RETRIES = 1;
const BUSY = [429, 503];
const FINAL = [400, 404, 405, 413, 415, 422];
const DEFAULT_WAIT_S = 3;
const LOST_WAIT_S = 1;

// "open" shows a result that the server has already. "delayed" waits for the next try. "removed" is final: what happens to
// a removed upload is of no interest any more.
export const UPLOAD = {
  waiting: { send: "uploading", open: "done", fail: "failed", remove: "removed" },
  uploading: { upload: "analysing", delay: "delayed", succeed: "done", fail: "failed", remove: "removed" },
  analysing: { delay: "delayed", succeed: "done", fail: "failed", remove: "removed" },
  delayed: { send: "uploading", fail: "failed", remove: "removed" },
  failed: { restart: "waiting", remove: "removed" },
  done: { remove: "removed" },
  removed: {
    send: "removed", open: "removed", upload: "removed", delay: "removed", succeed: "removed", fail: "removed",
    restart: "removed", remove: "removed",
  },
};

export const NO_RETRIES = { busy: 0, lost: 0, token: 0 };

// What follows a response { status, body, retryAfter, isTokenSuspect }, or null for a lost connection, after `retries`:
// { result }, { error }, or { retries, wait_s, text } for another try.
export function nextStep(retries, response) {
  if (response === null) return afterLostConnection(retries);
  const { status, body, retryAfter, isTokenSuspect } = response;
  if ([200, 201].includes(status) && body?.ok) return { result: body };
  if (isTokenSuspect && !retries.token) return { retries: { ...retries, token: 1 }, wait_s: 0, text: null };
  if (!BUSY.includes(status) || retries.busy >= MAX_BUSY_RETRIES) return { error: notAnalysed(errorOf(status, body)) };
  const wait_s = Number(retryAfter) || DEFAULT_WAIT_S;
  return { retries: { ...retries, busy: retries.busy + 1 }, wait_s, text: "Server busy, waiting" };
}

function afterLostConnection(retries) {
  if (retries.lost >= MAX_LOST_RETRIES) {
    return { error: new ServerError(`${CONNECTION_LOST} This file was not analysed; please try again.`) };
  }
  return { retries: { ...retries, lost: retries.lost + 1 }, wait_s: LOST_WAIT_S, text: "Connection lost, trying again" };
}

// Most messages of the server say so already; an unreadable response and a logout do not.
function notAnalysed(error) {
  if (!/not analysed/i.test(error.message)) error.message += " This file was not analysed.";
  return error;
}

// Whether the same file may succeed at a second try.
export const isRetryable = (error) => !FINAL.includes(error.status);

// "7 of 12 done: 3 likely, 1 possible, 2 none seen, 1 not analysed", from jobs { state, result }; empty for one job.
export function summarise(jobs) {
  const left = jobs.filter(({ state }) => state !== "removed");
  if (left.length < 2) return "";
  const finished = left.filter(({ state }) => state === "done" || state === "failed");
  const outcomes = finished.map(({ state, result }) => (state === "failed" ? "not analysed" : result.finding.level));
  const counts = ["likely", "possible", "none seen", "not analysed"]
    .map((name) => [outcomes.filter((outcome) => outcome === name).length, name])
    .filter(([count]) => count)
    .map(([count, name]) => `${count} ${name}`);
  return `${finished.length} of ${left.length} done${counts.length ? `: ${counts.join(", ")}` : ""}`;
}
