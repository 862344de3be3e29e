// Drags on the image other than panning: window and level, lengths, rectangles around a missed fracture, and boxes to move.
import { dragged, gripAt } from "./box_edit.js";
import { corners, rectangle } from "./boxes.js";
import { announce } from "./dom.js";

const MIN_SIDE_PX = 3;
const RIGHT_BUTTON = 2;
const REACH_PX = matchMedia("(pointer: coarse)").matches ? 22 : 10; // on the screen, around the edge of a box
const HELP = {
  draw: "Drawing. Drag a rectangle, or press an arrow key to start with one in the middle. Escape cancels.",
  move: "Moving. Drag the box or its edges, or use the arrow keys, with Shift to resize. Enter finishes, Escape cancels.",
};

export class Drawing {
  constructor(viewer) {
    this.viewer = viewer;
    this.box = null;
    const stage = viewer.part("stage");
    stage.addEventListener("pointerdown", (event) => this.#press(event), true); // before OpenSeadragon gets the event
    for (const key of ["draw-cancel", "move-cancel"]) viewer.part(key).addEventListener("click", () => viewer.use("pan"));
    viewer.part("move-done").addEventListener("click", () => this.#finish());
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("keydown", (event) => { if (this.isOn || viewer.tool === "measure") this.#key(event); });
  }

  // Begins to draw, or to move the box `moving` (number, box), and ends it with any other tool. With the keyboard, a drawn
  // rectangle starts in the middle of the view.
  begin(tool, moving = null) {
    this.isOn = Boolean(HELP[tool]);
    this.moving = tool === "move" ? moving : null;
    this.viewer.part("draw")?.setAttribute("aria-pressed", String(tool === "draw"));
    for (const own of Object.keys(HELP)) this.viewer.part(`${own}-help`).hidden = tool !== own;
    this.#propose(this.moving?.box ?? null);
    if (!this.isOn) return;
    this.viewer.part("stage").focus({ preventScroll: true });
    this.viewer.part("stage").scrollIntoView({ block: "nearest" });
    announce(HELP[tool]);
  }

  #press(event) {
    const { viewer } = this;
    if (event.target.closest("button")) return;
    const stage = viewer.part("stage");
    stage.focus({ preventScroll: true });
    const tool = event.button === RIGHT_BUTTON ? "window" : viewer.tool;
    if (tool === "pan" || event.button === 1 || !viewer.picture.osd?.isOpen()) return;
    event.stopPropagation();
    event.preventDefault();
    if (!event.isPrimary) return;
    const drags = {
      window: () => this.#windowDrag(event), draw: () => this.#boxDrag(event), measure: () => this.#lineDrag(event),
      move: () => this.#gripDrag(event),
    };
    const move = drags[tool]();
    const end = () => {
      stage.removeEventListener("pointermove", move);
      if (tool === "draw") this.#finish();
      if (tool === "measure") viewer.measuring.finish();
    };
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("lostpointercapture", end, { once: true });
  }

  #windowDrag({ clientX, clientY }) {
    let [x, y] = [clientX, clientY];
    return (event) => {
      this.viewer.window.drag(event.clientX - x, event.clientY - y);
      [x, y] = [event.clientX, event.clientY];
    };
  }

  #lineDrag({ clientX, clientY }) {
    const { measuring, picture } = this.viewer;
    const move = measuring.drag(picture.pixelAt(clientX, clientY));
    return (event) => move(picture.pixelAt(event.clientX, event.clientY));
  }

  // Drags the box to be moved, or its edges; whoever presses elsewhere draws it anew.
  #gripDrag({ clientX, clientY }) {
    const { picture, result } = this.viewer;
    const [start, box] = [picture.pixelAt(clientX, clientY), this.box];
    const grip = box && gripAt(box, start, REACH_PX / picture.zoom());
    if (!grip) return this.#boxDrag({ clientX, clientY });
    return (event) => {
      const by = picture.pixelAt(event.clientX, event.clientY).map((end, axis) => end - start[axis]);
      this.#propose(dragged(box, grip, by, result.image, MIN_SIDE_PX));
    };
  }

  #boxDrag({ clientX, clientY }) {
    const [x, y] = this.viewer.picture.pixelAt(clientX, clientY);
    return (event) => {
      const [u, v] = this.viewer.picture.pixelAt(event.clientX, event.clientY);
      this.#propose([Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)]);
    };
  }

  #key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { tool, measuring } = this.viewer;
    if (steps && tool === "measure") measuring.shift(steps, event.shiftKey);
    else if (steps) this.#shift(steps, event.shiftKey);
    else if (event.key === "Enter" && measuring.draft) measuring.finish();
    else if (event.key === "Enter" && this.box) this.#finish();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #shift([right, down], isResize) {
    const [left, top, end, bottom] = this.viewer.picture.inView();
    const [width, height] = [end - left, bottom - top];
    if (!this.box) {
      this.#propose([left + 0.4 * width, top + 0.4 * height, left + 0.6 * width, top + 0.6 * height]);
      return;
    }
    const step = Math.max(1, 0.02 * Math.min(width, height));
    const [x0, y0, x1, y1] = this.box;
    const size = this.viewer.result.image;
    const dx = Math.min(Math.max(right * step, isResize ? MIN_SIDE_PX - (x1 - x0) : -x0), size.width - x1);
    const dy = Math.min(Math.max(down * step, isResize ? MIN_SIDE_PX - (y1 - y0) : -y0), size.height - y1);
    this.#propose(isResize ? [x0, y0, x1 + dx, y1 + dy] : [x0 + dx, y0 + dy, x1 + dx, y1 + dy]);
  }

  #propose(box) {
    this.box = box;
    const handles = box && this.moving ? [corners(box)] : [];
    this.viewer.part("draft").replaceChildren(...(box ? [rectangle(box, "draft"), ...handles] : []));
  }

  #finish() {
    const { box, viewer, moving } = this;
    this.#propose(null);
    if (!box) return;
    if (box[2] - box[0] < MIN_SIDE_PX || box[3] - box[1] < MIN_SIDE_PX) {
      announce("The rectangle is too small and was discarded.");
      return;
    }
    viewer.use("pan");
    const rounded = box.map((side) => Math.round(10 * side) / 10);
    if (moving) viewer.feedback.moveBox(moving.number, rounded); else viewer.feedback.addMissed(rounded);
  }
}
