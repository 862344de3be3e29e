import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

import { readGreyPng } from "../../../webapp/static/grey_png.js";

const [WIDTH, HEIGHT] = [5, 5];
const VALUES = Uint16Array.from({ length: WIDTH * HEIGHT }, (_, index) => (index * 9973) % 65536);

function chunk(kind, data) {
  const body = Buffer.concat([Buffer.from(kind), data]);
  const [size, check] = [Buffer.alloc(4), Buffer.alloc(4)]; // the checksum is not read: the connection has its own
  size.writeUInt32BE(data.length);
  return Buffer.concat([size, body, check]);
}

// A PNG whose row r has the filter `filters[r]` (PNG, 9.2).
function png(filters, { depth = 16, colour = 0, height = HEIGHT } = {}) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(WIDTH, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colour, 0, 0, 0], 8);
  const plain = Buffer.alloc(2 * VALUES.length);
  VALUES.forEach((value, index) => plain.writeUInt16BE(value, 2 * index));
  const at = (row, place) => (row < 0 || place < 0 ? 0 : plain[row * 2 * WIDTH + place]);
  const rows = filters.map((filter, row) => Buffer.from([filter, ...Array.from({ length: 2 * WIDTH }, (_, place) => {
    const [a, b, c] = [at(row, place - 2), at(row - 1, place), at(row - 1, place - 2)];
    const distances = [a, b, c].map((value) => Math.abs(a + b - c - value));
    const paeth = [a, b, c][distances.indexOf(Math.min(...distances))];
    return (at(row, place) - [0, a, b, (a + b) >> 1, paeth][filter]) & 0xff;
  })]));
  const data = deflateSync(Buffer.concat(rows));
  return Buffer.concat([
    Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), chunk("IHDR", header), chunk("IDAT", data.subarray(0, 9)),
    chunk("IDAT", data.subarray(9)), chunk("IEND", Buffer.alloc(0)),
  ]);
}

test("every sample is read, whatever the filter of its row", async () => {
  for (const filters of [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 2, 2, 2]]) {
    const { width, height, values } = await readGreyPng(png(filters));
    assert.deepEqual([width, height], [WIDTH, HEIGHT]);
    assert.deepEqual([...values], [...VALUES]);
  }
});

test("what is no such picture is an error and not a picture", async () => {
  const whole = png([0, 0, 0, 0, 0]);
  await assert.rejects(readGreyPng(Buffer.from("no picture at all")), /not a PNG/);
  await assert.rejects(readGreyPng(png([0, 0, 0, 0, 0], { depth: 8 })), /depth 8/);
  await assert.rejects(readGreyPng(png([0, 0, 0, 0, 0], { colour: 2 })), /colour type 2/);
  await assert.rejects(readGreyPng(png([0, 0, 0, 0, 0], { height: 6 })), /rows are missing/);
  await assert.rejects(readGreyPng(whole.subarray(0, whole.length - 30)));
});
