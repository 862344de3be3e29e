import assert from "node:assert/strict";
import { test } from "node:test";

import {
  GROUPS, arrange, countText, firstChoice, groupOf, isReadable, neighbour, scoreOf, scoreWords,
} from "../../../webapp/static/worklist_state.js";

const done = (name, level, score, more = {}) => ({
  name, state: "done", isRead: false,
  result: { finding: { level, confidence: null }, detections: score === null ? [] : [{ score }], calibrated: false, ...more },
});
const failed = (name) => ({ name, state: "failed", isRead: false });
const waiting = (name, state = "waiting") => ({ name, state, isRead: false });
const names = (groups) => groups.map(({ key, entries }) => [key, entries.map(({ name }) => name).join(" ")]);

test("entries stand by suspicion, within it by score, and a failure apart from no fracture", () => {
  const entries = [
    waiting("w"), done("n", "none seen", null), failed("f"), done("p", "possible", 0.3), done("l1", "likely", 0.6),
    done("l2", "likely", 0.9), done("m", "none seen", 0.1), waiting("u", "uploading"), waiting("a", "analysing"),
    waiting("d", "delayed"),
  ];
  assert.deepEqual(names(arrange(entries)), [
    ["likely", "l2 l1"], ["possible", "p"], ["not analysed", "f"], ["none seen", "m n"], ["waiting", "w u a d"],
  ]);
  assert.equal(entries[0].name, "w", "an argument was changed");
});

test("a failure is never in the group of no fracture, whatever it holds", () => {
  const before = done("f", "none seen", null).result;
  assert.equal(groupOf({ state: "failed", result: before }), "not analysed");
  assert.equal(groupOf({ state: "waiting", result: before }), "waiting");
  assert.equal(new Set(GROUPS.map(({ title }) => title)).size, GROUPS.length);
});

test("a calibrated probability of the radiograph goes before the scores of its boxes", () => {
  const entry = done("l", "likely", 0.9, { calibrated: true });
  entry.result.finding.confidence = 0.42;
  assert.equal(scoreOf(entry), 0.42);
  assert.equal(scoreWords(entry), "42 %");
  assert.equal(scoreWords(done("p", "possible", 0.3)), "0.30");
  assert.equal(scoreWords(done("n", "none seen", null)), "");
  assert.equal(scoreWords(failed("f")), "");
});

test("with only what is not read, a read entry goes, but for the chosen one", () => {
  const [a, b, c] = [done("a", "likely", 0.9), done("b", "likely", 0.8), done("c", "possible", 0.3)];
  for (const entry of [a, b]) entry.isRead = true;
  assert.deepEqual(names(arrange([a, b, c], { onlyUnread: true })), [["possible", "c"]]);
  assert.deepEqual(names(arrange([a, b, c], { onlyUnread: true, chosen: b })), [["likely", "b"], ["possible", "c"]]);
});

test("a step stays within the list, and begins at its top", () => {
  const order = ["a", "b", "c"];
  assert.deepEqual([neighbour(order, "a", 1), neighbour(order, "a", -1), neighbour(order, "c", 5)], ["b", "a", "c"]);
  assert.deepEqual([neighbour(order, "gone", 1), neighbour([], null, 1)], ["a", null]);
});

test("before the reader chooses, what has no result gives way to the first that has one, and a result to nothing", () => {
  const [w, f, n, l] = [waiting("w"), failed("f"), done("n", "none seen", 0.1), done("l", "likely", 0.9)];
  assert.equal(firstChoice([w], null), w);
  assert.equal(firstChoice([f, w], w), w);
  assert.equal(firstChoice([n, w], w), n);
  assert.equal(firstChoice([l, n], n), n);
  assert.equal(firstChoice([l, f], f), l);
  assert.equal(firstChoice([f, w], f), f);
  assert.equal(firstChoice([], null), null);
});

test("only what has ended can be read, and is counted", () => {
  const entries = [done("a", "likely", 0.9), failed("f"), waiting("w")];
  assert.deepEqual(entries.map(isReadable), [true, true, false]);
  entries[0].isRead = true;
  assert.equal(countText(entries), "1 of 3 read");
});
