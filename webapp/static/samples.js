// Draws the part of a deep radiograph that is in view, from its own samples: OpenSeadragon only has the image of 8 bits.
import { readGreyPng } from "./grey_png.js";

const ALL_VALUES = 1 << 16;

export class SampleLayer {
  constructor({ width, height, values }) {
    this.levels = [{ width, height, values }]; // each half as large as the one before
    this.table = new Uint32Array(ALL_VALUES);
    this.canvas = Object.assign(document.createElement("canvas"), { className: "samples" });
    this.piece = document.createElement("canvas");
  }

  // Throws an Error where they cannot be had.
  static async load(url, size, signal) {
    const response = await fetch(url, { signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const read = await readGreyPng(new Uint8Array(await response.arrayBuffer()));
    if (read.width !== size.width || read.height !== size.height) throw new Error("samples of another image");
    return new SampleLayer(read);
  }

  valueAt(x, y) {
    const { width, height, values } = this.levels[0];
    return values[Math.min(Math.floor(y), height - 1) * width + Math.min(Math.floor(x), width - 1)];
  }

  // Which grey each value has: `slope` * share + `intercept` from 0 to 1, where the share of `low` is 0 and of `high` 1.
  setGreys({ slope, intercept }, [low, high]) {
    for (let value = 0; value < ALL_VALUES; value += 1) {
      const grey = 255 * (slope * ((value - low) / (high - low)) + intercept);
      this.table[value] = 0xff000000 | (0x010101 * Math.floor(Math.min(Math.max(grey, 0), 255) + 0.5));
    }
  }

  draw({ viewport }, isSmooth) {
    const ratio = devicePixelRatio;
    const size = viewport.getContainerSize().times(ratio);
    resize(this.canvas, Math.round(size.x), Math.round(size.y));
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const [Point, centre] = [window.OpenSeadragon.Point, size.divide(2 * ratio)];
    const [start, end] = [new Point(0, 0), centre.times(2)].map((point) => viewport.viewerElementToImageCoordinates(point));
    const zoom = this.canvas.width / (end.x - start.x); // pixels of the screen per pixel of the image
    const index = Math.max(0, Math.floor(Math.log2(1 / zoom)));
    const level = this.#level(index);
    const step = 2 ** (this.levels.indexOf(level));
    const [x0, x1] = [start.x, end.x].map((x, at) => clamp(Math.floor(x / step) + (at ? 2 : -1), 0, level.width));
    const [y0, y1] = [start.y, end.y].map((y, at) => clamp(Math.floor(y / step) + (at ? 2 : -1), 0, level.height));
    if (x1 <= x0 || y1 <= y0) return;
    this.#fillPiece(level, x0, y0, x1 - x0, y1 - y0);
    context.imageSmoothingEnabled = isSmooth;
    const place = [x0 * step - start.x, y0 * step - start.y, (x1 - x0) * step, (y1 - y0) * step];
    context.drawImage(this.piece, 0, 0, x1 - x0, y1 - y0, ...place.map((side) => side * zoom));
  }

  #fillPiece(level, left, top, width, height) {
    resize(this.piece, Math.max(this.piece.width, width), Math.max(this.piece.height, height));
    const image = new ImageData(width, height);
    const greys = new Uint32Array(image.data.buffer);
    for (let row = 0; row < height; row += 1) {
      const from = (top + row) * level.width + left;
      for (let column = 0; column < width; column += 1) {
        greys[row * width + column] = this.table[level.values[from + column]];
      }
    }
    this.piece.getContext("2d").putImageData(image, 0, 0);
  }

  #level(index) {
    while (this.levels.length <= index && Math.min(this.levels.at(-1).width, this.levels.at(-1).height) > 1) {
      this.levels.push(halved(this.levels.at(-1)));
    }
    return this.levels[Math.min(index, this.levels.length - 1)];
  }
}

// Means of two by two; the last row or column counts twice where their number is odd.
function halved({ width: fullWidth, height: fullHeight, values: full }) {
  const [width, height] = [Math.ceil(fullWidth / 2), Math.ceil(fullHeight / 2)];
  const values = new Uint16Array(width * height);
  for (let row = 0; row < height; row += 1) {
    const [upper, lower] = [2 * row, Math.min(2 * row + 1, fullHeight - 1)].map((line) => line * fullWidth);
    for (let column = 0; column < width; column += 1) {
      const [left, right] = [2 * column, Math.min(2 * column + 1, fullWidth - 1)];
      const sum = full[upper + left] + full[upper + right] + full[lower + left] + full[lower + right];
      values[row * width + column] = (sum + 2) >> 2;
    }
  }
  return { width, height, values };
}

function resize(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
