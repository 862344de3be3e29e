// Lengths on the image: lines that a reader draws, their list, and the scale bar. Nothing of it is sent anywhere.
import { announce } from "./dom.js";
import { lengthText, scaleBar, spacingText } from "./length.js";

const SVG = "http://www.w3.org/2000/svg";
const MIN_LENGTH_PX = 1;
const MOST_OF_STAGE = 0.3; // that the scale bar takes

export class Measuring {
  constructor(viewer) {
    Object.assign(this, { viewer, part: viewer.part, spacing: viewer.result.spacing_mm ?? null, lines: [], draft: null });
    this.part("measure").addEventListener("click", () => viewer.use(viewer.tool === "measure" ? "pan" : "measure"));
    this.part("lengths-clear").addEventListener("click", () => {
      this.lines = [];
      this.part("measure").focus();
      announce("Lengths removed");
      this.#render();
    });
    this.part("length-note").textContent = this.spacing
      ? `${spacingText(this.spacing)}, ${viewer.result.spacing_note}. Not stored.`
      : "In pixels: the file does not say how large a pixel is. Not stored.";
    const note = viewer.result.spacing_note ?? "";
    this.part("scale").title = note.charAt(0).toUpperCase() + note.slice(1);
    viewer.picture.on("moved", () => this.#showScale());
  }

  begin(isOn) {
    this.part("measure").setAttribute("aria-pressed", String(isOn));
    this.part("measure-help").hidden = !isOn;
    this.#propose(null);
    if (isOn) announce("Measuring. Drag a line, or press an arrow key to start with one in the middle. Escape leaves.");
  }

  drag([x, y]) {
    return ([u, v]) => this.#propose([x, y, u, v]);
  }

  // Moves the end of the line by a step, or its start; the first step puts it in the middle of the view.
  shift([right, down], isStart) {
    const [left, top, end, bottom] = this.viewer.picture.inView();
    const [width, height] = [end - left, bottom - top];
    if (!this.draft) {
      this.#propose([left + 0.4 * width, top + height / 2, left + 0.6 * width, top + height / 2]);
      return;
    }
    const step = Math.max(1, 0.01 * Math.min(width, height));
    const size = this.viewer.result.image;
    const line = [...this.draft];
    const [x, y] = isStart ? [0, 1] : [2, 3];
    line[x] = Math.min(Math.max(line[x] + right * step, 0), size.width);
    line[y] = Math.min(Math.max(line[y] + down * step, 0), size.height);
    this.#propose(line);
    announce(lengthText(line, this.spacing));
  }

  finish() {
    const line = this.draft;
    this.#propose(null);
    if (!line) return;
    if (Math.hypot(line[2] - line[0], line[3] - line[1]) < MIN_LENGTH_PX) {
      announce("The line is too short and was discarded.");
      return;
    }
    this.lines.push(line);
    announce(`Length ${this.lines.length}: ${lengthText(line, this.spacing)}`);
    this.#render();
  }

  #propose(line) {
    this.draft = line;
    this.#render();
  }

  #render() {
    const { lines, draft, spacing } = this;
    const all = draft ? [...lines, draft] : lines;
    const { width, height } = this.viewer.result.image;
    this.part("lines").replaceChildren(...all.map(drawn));
    this.part("line-tags").replaceChildren(...all.map((line) => {
      const label = document.createElement("span");
      Object.assign(label, { className: "length", textContent: lengthText(line, spacing) });
      const right = line[0] > line[2] ? 0 : 2;
      label.style.left = `${(100 * line[right]) / width}%`;
      label.style.top = `${(100 * line[right + 1]) / height}%`;
      label.classList.toggle("leftwards", line[right] > 0.8 * width);
      return label;
    }));
    this.part("measures").hidden = !lines.length;
    this.part("lengths").replaceChildren(...lines.map((line) => (
      Object.assign(document.createElement("li"), { textContent: lengthText(line, spacing) })
    )));
  }

  #showScale() {
    const { viewer, part } = this;
    const bar = scaleBar(this.spacing, viewer.picture.zoom(), MOST_OF_STAGE * part("stage").clientWidth);
    part("scale").hidden = !bar;
    if (!bar) return;
    part("scale").style.width = `${bar.width_px}px`;
    part("scale").textContent = bar.text;
  }
}

// A line with a dot at each end, on a dark halo.
function drawn([x0, y0, x1, y1]) {
  const group = document.createElementNS(SVG, "g");
  const strokes = [["halo", x0, y0, x1, y1], ["line", x0, y0, x1, y1], ["dot", x0, y0, x0, y0], ["dot", x1, y1, x1, y1]];
  group.append(...strokes.map(([name, ...ends]) => {
    const line = document.createElementNS(SVG, "line");
    line.setAttribute("class", name);
    ["x1", "y1", "x2", "y2"].forEach((side, index) => line.setAttribute(side, ends[index]));
    return line;
  }));
  return group;
}
