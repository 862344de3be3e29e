import assert from "node:assert/strict";
import { test } from "node:test";

import { className, number, plural, probabilityText, scoreText, thresholdText } from "../../../webapp/static/text.js";

test("a probability is never shown as a certainty", () => {
  const texts = [0, 0.009, 0.01, 0.5, 0.99, 0.991, 1].map(probabilityText);
  assert.deepEqual(texts, ["< 1 %", "< 1 %", "1 %", "50 %", "99 %", "> 99 %", "> 99 %"]);
});

test("scores are percentages only where they are probabilities", () => {
  assert.equal(scoreText(0.871, { calibrated: true }), "87 %");
  assert.equal(scoreText(0.871, { calibrated: false }), "0.87");
  assert.equal(thresholdText(1, { calibrated: true }), "100 %");
});

test("counts, numbers and classes", () => {
  assert.deepEqual([0, 1, 2].map((count) => plural(count, "box", "boxes")), ["0 boxes", "1 box", "2 boxes"]);
  assert.equal(number(0.5), "0.50");
  assert.equal(className("none seen"), "none-seen");
});
