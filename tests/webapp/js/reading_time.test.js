import assert from "node:assert/strict";
import { test } from "node:test";

import { Stopwatch } from "../../../webapp/static/reading_time.js";

test("only the time that it runs counts, after what was measured before", () => {
  let ms = 0;
  const watch = new Stopwatch(5, () => ms);
  ms = 1000;
  assert.equal(watch.seconds, 5);
  watch.run(true);
  ms = 3000;
  watch.run(true);
  assert.equal(watch.seconds, 7);
  ms = 3540;
  watch.run(false);
  ms = 60_000;
  watch.run(false);
  assert.equal(watch.seconds, 7.5);
  watch.run(true);
  ms = 61_000;
  assert.equal(watch.seconds, 8.5);
});

test("an hour is the most", () => {
  let ms = 0;
  const watch = new Stopwatch(0, () => ms);
  watch.run(true);
  ms = 1e9;
  assert.equal(watch.seconds, 3600);
});
