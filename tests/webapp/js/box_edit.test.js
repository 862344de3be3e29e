import assert from "node:assert/strict";
import { test } from "node:test";

import { dragged, gripAt } from "../../../webapp/static/box_edit.js";

const BOX = [20, 30, 60, 50];
const SIZE = { width: 100, height: 80 };

for (const [point, grip] of [
  [[40, 40], [true, true, true, true]], [[21, 40], [true, false, false, false]], [[61, 49], [false, false, true, true]],
  [[40, 29], [false, true, false, false]], [[10, 40], null], [[40, 60], null],
]) {
  test(`a press at ${point} holds ${grip}`, () => assert.deepEqual(gripAt(BOX, point, 5), grip));
}

test("the middle of a box smaller than the reach still moves it", () => {
  assert.deepEqual(gripAt([10, 10, 16, 16], [13, 13], 20), [true, true, true, true]);
});

for (const [name, grip, by, box] of [
  ["moved", [true, true, true, true], [5, -5], [25, 25, 65, 45]],
  ["moved to the edge", [true, true, true, true], [90, 90], [60, 60, 100, 80]],
  ["wider", [false, false, true, false], [10, 10], [20, 30, 70, 50]],
  ["a corner", [true, true, false, false], [-30, 5], [0, 35, 60, 50]],
  ["never inside out", [true, false, false, false], [99, 0], [57, 30, 60, 50]],
]) {
  test(`a box ${name}`, () => assert.deepEqual(dragged(BOX, grip, by, SIZE, 3), box));
}
