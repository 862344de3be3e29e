import assert from "node:assert/strict";
import { test } from "node:test";

import { lengthOf, lengthText, scaleBar, spacingText } from "../../../webapp/static/length.js";

test("a length is in mm where a pixel has a size, each side by its own", () => {
  assert.equal(lengthOf([10, 20, 13, 24], null), 5);
  assert.equal(lengthText([10, 20, 13, 24], null), "5 px");
  // 30 columns of 0.2 mm are 6 mm, 80 rows of 0.1 mm are 8 mm, and together 10 mm.
  assert.equal(lengthText([0, 0, 30, 80], [0.1, 0.2]), "10.0 mm");
  assert.equal(lengthText([30, 80, 0, 0], [0.1, 0.2]), "10.0 mm");
});

test("the size of a pixel is width by height, once where it is square", () => {
  assert.equal(spacingText([0.139, 0.139]), "0.139 mm per pixel");
  assert.equal(spacingText([0.2, 0.1]), "0.1 × 0.2 mm per pixel");
  assert.equal(spacingText(null), "size of a pixel unknown");
});

test("the scale bar is the longest round length that has room, across", () => {
  // 2 screen pixels per pixel of 0.1 mm: 20 per mm.
  assert.deepEqual(scaleBar([0.5, 0.1], 2, 120), { width_px: 100, text: "5 mm" });
  assert.deepEqual(scaleBar([0.5, 0.1], 2, 99), { width_px: 40, text: "2 mm" });
  assert.equal(scaleBar([0.5, 0.1], 20, 120), null);
  assert.equal(scaleBar(null, 2, 120), null);
});
