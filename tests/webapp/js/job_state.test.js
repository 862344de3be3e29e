import assert from "node:assert/strict";
import { test } from "node:test";

import { NO_RETRIES, UPLOAD, isRetryable, nextStep, summarise } from "../../../webapp/static/job_state.js";
import { nextState } from "../../../webapp/static/state_machine.js";

const run = (...events) => events.reduce((state, event) => nextState(UPLOAD, state, event), "waiting");
const response = (status, more = {}) => ({ status, body: { ok: false, error: "No. This file was not analysed." }, ...more });

const PATHS = [
  [[], "waiting"],
  [["send"], "uploading"],
  [["send", "upload"], "analysing"],
  [["send", "upload", "succeed"], "done"],
  [["send", "fail"], "failed"], // rejected before the last byte was sent
  [["fail"], "failed"], // too large to be sent
  [["send", "upload", "delay"], "delayed"],
  [["send", "delay", "send", "upload", "succeed"], "done"],
  [["send", "upload", "fail", "restart"], "waiting"],
  [["send", "remove", "upload", "succeed"], "removed"],
  [["send", "upload", "succeed", "remove"], "removed"],
];
for (const [events, state] of PATHS) {
  test(`an upload: ${events.join(", ") || "at first"} -> ${state}`, () => assert.equal(run(...events), state));
}

test("an upload cannot end twice, or without having been sent", () => {
  for (const events of [["succeed"], ["upload"], ["restart"], ["send", "succeed", "succeed"], ["send", "fail", "succeed"]]) {
    assert.throws(() => run(...events), /no transition from/);
  }
});

test("every transition leads to a state that exists, and every state can be removed", () => {
  for (const transitions of Object.values(UPLOAD)) {
    assert.equal(transitions.remove, "removed");
    for (const next of Object.values(transitions)) assert.ok(UPLOAD[next], next);
  }
});

test("a result ends the tries", () => {
  const body = { ok: true, finding: { level: "likely" } };
  for (const status of [200, 201]) assert.deepEqual(nextStep(NO_RETRIES, response(status, { body })), { result: body });
});

test("a success that cannot be read is a failure and not a result", () => {
  const { error, result } = nextStep(NO_RETRIES, response(200, { body: null }));
  assert.equal(result, undefined);
  assert.equal(error.message, "The server sent a response that cannot be read. This file was not analysed.");
});

for (const status of [429, 503]) {
  test(`a server that is busy (${status}) is asked again after Retry-After, 20 times at most`, () => {
    assert.equal(nextStep(NO_RETRIES, response(status, { retryAfter: "7" })).wait_s, 7);
    let retries = NO_RETRIES;
    for (let count = 1; count <= 20; count += 1) {
      const step = nextStep(retries, response(status, { retryAfter: null }));
      assert.deepEqual([step.wait_s, step.retries.busy], [3, count]);
      retries = step.retries;
    }
    assert.equal(nextStep(retries, response(status)).error.status, status);
    assert.deepEqual(NO_RETRIES, { busy: 0, lost: 0, token: 0 }, "an argument was changed");
  });
}

test("a lost connection is tried once more", () => {
  const step = nextStep(NO_RETRIES, null);
  assert.deepEqual([step.wait_s, step.retries.lost], [1, 1]);
  const { error } = nextStep(step.retries, null);
  assert.match(error.message, /connection to the server was lost.*not analysed/);
  assert.ok(isRetryable(error));
});

test("a doubtful token is renewed once and at once", () => {
  const step = nextStep(NO_RETRIES, response(403, { isTokenSuspect: true }));
  assert.deepEqual([step.wait_s, step.retries.token], [0, 1]);
  assert.equal(nextStep(step.retries, response(403, { isTokenSuspect: true })).error.status, 403);
});

test("every failure says that the file was not analysed, once", () => {
  const { error } = nextStep(NO_RETRIES, response(415));
  assert.equal(error.message, "No. This file was not analysed.");
  assert.equal(nextStep(NO_RETRIES, response(401)).error.message, "You are logged out. This file was not analysed.");
});

test("only a failure that may pass can be tried again", () => {
  const retryable = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 502, 503].filter((status) => isRetryable({ status }));
  assert.deepEqual(retryable, [401, 403, 409, 429, 500, 502, 503]);
});

test("the summary counts what is on the page", () => {
  const done = (level) => ({ state: "done", result: { finding: { level } } });
  const others = ["failed", "analysing", "removed"].map((state) => ({ state }));
  const jobs = [done("likely"), done("none seen"), done("likely"), ...others];
  assert.equal(summarise(jobs), "4 of 5 done: 2 likely, 1 none seen, 1 not analysed");
  assert.equal(summarise([{ state: "waiting" }, { state: "delayed" }]), "0 of 2 done");
  assert.equal(summarise([done("likely"), { state: "removed" }]), "");
});
