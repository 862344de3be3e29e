// Reads a grey PNG of 16 bits, of which browsers would keep only 8. No DOM in here: the unit tests run it in Node.
const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const BYTES = 2; // of a sample

// Returns { width, height, values }, `values` row by row. Throws an Error for anything but what the server writes.
export async function readGreyPng(bytes) {
  if (SIGNATURE.some((byte, index) => bytes[index] !== byte)) throw new Error("not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [coded, header] = [[], {}];
  for (let place = SIGNATURE.length; place + 12 <= bytes.length;) {
    const size = view.getUint32(place);
    const kind = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
    if (kind === "IHDR") Object.assign(header, readHeader(view, place + 8));
    if (kind === "IDAT") coded.push(bytes.subarray(place + 8, place + 8 + size));
    place += 12 + size;
  }
  if (!header.width) throw new Error("no header");
  const rows = await inflate(coded);
  if (rows.length !== header.height * (1 + BYTES * header.width)) throw new Error("rows are missing");
  return { ...header, values: samplesOf(rows, header) };
}

function readHeader(view, place) {
  const [depth, colour, , , interlaced] = [8, 9, 10, 11, 12].map((offset) => view.getUint8(place + offset));
  if (depth !== 16 || colour !== 0 || interlaced) throw new Error(`depth ${depth}, colour type ${colour}`);
  return { width: view.getUint32(place), height: view.getUint32(place + 4) };
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// PNG, 9.2: each row begins with the number of its filter.
function samplesOf(rows, { width, height }) {
  const stride = BYTES * width;
  const values = new Uint16Array(width * height);
  let above = new Uint8Array(stride);
  for (let row = 0; row < height; row += 1) {
    const start = row * (stride + 1);
    const line = rows.subarray(start + 1, start + 1 + stride);
    undoFilter(rows[start], line, above);
    for (let column = 0; column < width; column += 1) {
      values[row * width + column] = (line[BYTES * column] << 8) | line[BYTES * column + 1];
    }
    above = line;
  }
  return values;
}

function undoFilter(filter, line, above) {
  if (filter > 4) throw new Error(`filter ${filter}`);
  if (filter === 0) return;
  for (let place = 0; place < line.length; place += 1) {
    const left = place < BYTES ? 0 : line[place - BYTES];
    const corner = place < BYTES ? 0 : above[place - BYTES];
    line[place] += predicted(filter, left, above[place], corner);
  }
}

function predicted(filter, left, up, corner) {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}
