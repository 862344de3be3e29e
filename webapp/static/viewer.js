// One result: the image with its boxes, the list, and the slider. Moving the slider never changes the finding.
import { listItem, rectangle, tag } from "./boxes.js";
import { announce, cloneTemplate } from "./dom.js";
import { Drawing } from "./drawing.js";
import { Feedback } from "./feedback.js";
import { register } from "./keys.js";
import { Measuring } from "./measure.js";
import { fillPanel } from "./panel.js";
import { Picture } from "./picture.js";
import { showReaders } from "./readings.js";
import { fetchJson } from "./server.js";
import { number, plural, scoreName, thresholdText } from "./text.js";
import { Windowing } from "./window.js";

let count = 0;

export async function openResult(place) {
  const score = new URLSearchParams(location.search).get("score");
  const result = await fetchJson("GET", `${place.dataset.result}?score=0`).catch(() => null);
  if (!result) return; // the page without JavaScript stays
  place.replaceChildren();
  place.classList.remove("viewer");
  const isSettling = "settling" in place.dataset;
  show(place, result, { threshold: score === null ? undefined : Number(score), isSettling });
}

// `isSettling`: for an adjudicator, with what all readers have marked.
export function show(place, result, { threshold, isCompact = false, isSettling = false, onFeedback } = {}) {
  const element = cloneTemplate("viewer-template");
  const parts = Object.fromEntries([...element.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
  const viewer = new Viewer(element, (key) => parts[key], result, threshold ?? result.operating_score);
  if (isCompact) viewer.makeCompact(); else viewer.addFeedback(onFeedback, isSettling);
  place.append(element);
  viewer.render();
  return viewer;
}

class Viewer {
  constructor(element, part, result, threshold) {
    Object.assign(this, { element, part, result, threshold, selected: null, tool: "pan", listeners: [], hasBoxes: true });
    this.key = count += 1;
    this.picture = new Picture({
      stage: part("stage"), frame: part("frame"), sheet: part("sheet"), source: result.links.image,
      samples: result.links.samples, size: result.image,
    });
    this.window = new Windowing(part, this.picture, this.key, result.image);
    this.drawing = new Drawing(this);
    this.measuring = new Measuring(this);
    fillPanel(element, part, result);
    this.#fillPicture();
    this.#wire();
    register(this);
  }

  addFeedback(onFeedback, isSettling) {
    this.feedback = new Feedback(this, onFeedback, { isSettling });
    if (isSettling) this.readings = showReaders(this, (reading) => this.feedback.take(reading));
  }

  makeCompact() {
    this.element.classList.add("compact");
    const left = ["feedback", "advice", "links", "draw", "facts", "measure", "measures", "others", "types"];
    for (const key of left) this.part(key).remove();
  }

  on(listener) { this.listeners.push(listener); }

  destroy() {
    this.feedback?.destroy();
    this.picture.destroy();
    this.element.remove();
  }

  #fillPicture() {
    const { part, picture, result: { image: { width, height, bits } } } = this;
    part("stage").style.aspectRatio = `${width} / ${height}`;
    for (const key of ["boxes", "draft", "lines"]) part(key).setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.on("failed", () => { part("image-failure").hidden = false; });
    part("image-shallow").hidden = !picture.source || bits === 8 || Boolean(picture.samples);
    picture.on("shallow", () => { part("image-shallow").hidden = false; });
    part("stage").addEventListener("pointermove", ({ clientX, clientY }) => this.#showValue(clientX, clientY));
    part("stage").addEventListener("pointerleave", () => { part("value-readout").textContent = ""; });
    part("image-missing").hidden = Boolean(picture.source);
    picture.on("moved", () => { part("zoom-readout").textContent = `${Math.round(100 * picture.zoom())} %`; });
  }

  // The sample under the pointer, of a deep radiograph.
  #showValue(clientX, clientY) {
    if (!this.picture.layer || !this.picture.osd?.isOpen()) return;
    const [x, y] = this.picture.pixelAt(clientX, clientY).map(Math.floor);
    this.part("value-readout").textContent = `${x}, ${y}: ${this.picture.valueAt(x, y)}`;
  }

  #wire() {
    const { part } = this;
    const slider = part("slider");
    slider.id = `slider-${this.key}`;
    part("slider-label").htmlFor = slider.id;
    slider.value = this.threshold;
    slider.addEventListener("input", () => { this.threshold = Number(slider.value); this.render(); });
    part("reset").addEventListener("click", () => {
      this.threshold = this.result.operating_score;
      slider.value = this.threshold;
      this.render();
    });
    part("show-possible").addEventListener("click", () => {
      this.threshold = Math.min(this.threshold, this.result.possible_score);
      slider.value = this.threshold;
      this.render();
      slider.focus();
    });
    const clicks = {
      toggle: () => this.showBoxes(!this.hasBoxes), original: () => this.showOriginal(!this.isOriginal),
      "zoom-in": () => this.picture.zoomBy(1.5), "zoom-out": () => this.picture.zoomBy(1 / 1.5),
      fit: () => this.picture.fit(), actual: () => this.picture.actualSize(),
      "window-tool": () => this.use(this.tool === "window" ? "pan" : "window"),
    };
    for (const [key, act] of Object.entries(clicks)) part(key).addEventListener("click", act);
  }

  // The tool that a drag with the left button uses: pan, window, measure, draw, or move, of the box `moving`.
  use(tool, moving = null) {
    this.tool = tool;
    this.part("stage").dataset.tool = tool;
    this.part("window-tool").setAttribute("aria-pressed", String(tool === "window"));
    this.measuring.begin(tool === "measure");
    this.drawing.begin(tool, moving);
  }

  showBoxes(hasBoxes, isUserAction = true) {
    this.hasBoxes = hasBoxes;
    this.part("toggle").setAttribute("aria-pressed", String(hasBoxes));
    this.#updateSheet();
    if (isUserAction) for (const listener of this.listeners) listener(this);
  }

  // The radiograph without boxes and windowing.
  showOriginal(isOriginal) {
    this.isOriginal = isOriginal;
    this.part("original").setAttribute("aria-pressed", String(isOriginal));
    this.window.hold(isOriginal);
    this.#updateSheet();
    announce(isOriginal ? "Original" : "Boxes and windowing are back");
  }

  #updateSheet() { this.part("sheet").classList.toggle("bare", this.isOriginal || !this.hasBoxes); }

  reset() {
    if (this.isOriginal) this.showOriginal(false);
    this.window.reset();
    this.picture.fit();
    this.use("pan");
  }

  render() {
    const { result, part, threshold } = this;
    this.shown = result.detections.filter((box) => box.score >= threshold);
    const hidden = result.detections.length - this.shown.length;
    const text = thresholdText(threshold, result);
    part("threshold").textContent = text;
    const shownText = plural(this.shown.length, "box", "boxes");
    part("slider").setAttribute("aria-valuetext", `${scoreName(result)} ${text}, ${shownText} shown`);
    for (const [key, link] of [["overlay", "overlay"], ["report", "report"], ["report-pdf", "report_pdf"]]) {
      if (result.links[link]) part(key).href = `${result.links[link]}?score=${threshold}`;
    }
    part("stage").setAttribute("aria-label", `Radiograph with ${plural(this.shown.length, "box", "boxes")}`);
    part("count").textContent = this.shown.length || hidden
      ? `${plural(this.shown.length, "box", "boxes")} shown, ${hidden} below the slider.`
      : `No boxes, not even weak ones (score ${number(result.floor_score)} or higher).`;
    const possible = result.detections.filter((box) => box.level === "possible" && box.score < threshold);
    part("show-possible").hidden = !possible.length;
    part("show-possible").textContent = `Show ${plural(possible.length, "possible box", "possible boxes")}`;
    part("list").replaceChildren(...this.shown.map((box) => listItem(box, result, () => {
      this.select(this.selected === box.number ? null : box.number);
    })));
    this.renderBoxes();
  }

  // Draws the boxes of the detector, and those that the reader, or several, moved and drew.
  renderBoxes() {
    const { part, shown, result, feedback, readings = [] } = this;
    const missed = feedback?.missed ?? [];
    const verdict = (box) => ({ right: " ✓", wrong: " ✗" })[feedback?.verdictOf(box.number)] ?? "";
    const upwards = [...shown].reverse(); // the highest score lies on top
    const moved = result.detections.filter((box) => feedback?.movedTo(box.number));
    const place = (box) => feedback?.movedTo(box.number) ?? box.box_xyxy_px;
    const kind = (box) => (moved.includes(box) ? "missed" : box.level);
    part("boxes").replaceChildren(
      ...upwards.map((box) => rectangle(box.box_xyxy_px, moved.includes(box) ? "left-behind" : box.level, box.number)),
      ...readings.flatMap(({ reader, boxes }) => boxes.map((box) => rectangle(box, reader))),
      ...moved.map((box) => rectangle(place(box), "missed", box.number)),
      ...missed.map((box) => rectangle(box, "missed")),
    );
    part("tags").replaceChildren(
      ...readings.flatMap(({ reader, name, boxes }) => boxes.map(([x0, , , y1]) => tag([x0, y1], reader, name, result.image))),
      ...upwards.map((box) => tag(place(box), kind(box), `${box.number}${verdict(box)}`, result.image, box.number)),
      ...missed.map((box, index) => tag(box, "missed", `missed ${index + 1}`, result.image)),
    );
    feedback?.render();
    this.select(this.selected);
  }

  select(selected) {
    const isNew = selected !== this.selected;
    this.selected = selected;
    for (const key of ["boxes", "tags", "list"]) {
      for (const element of this.part(key).querySelectorAll("[data-number]")) {
        const isSelected = Number(element.dataset.number) === selected;
        element.classList.toggle("selected", isSelected);
        if (element.matches("button")) element.setAttribute("aria-pressed", String(isSelected));
      }
    }
    const box = this.shown.find(({ number: own }) => own === selected);
    this.part("sheet").classList.toggle("one-selected", Boolean(box));
    if (box && isNew) this.picture.reveal(box.box_xyxy_px);
  }

  // The next box of the list, or the previous one.
  step(by) {
    if (!this.shown.length) return;
    const here = this.shown.findIndex((box) => box.number === this.selected);
    const next = here < 0 ? (by > 0 ? 0 : this.shown.length - 1) : (here + by + this.shown.length) % this.shown.length;
    this.select(this.shown[next].number);
    announce(this.part("list").querySelector(".selected").getAttribute("aria-label"));
  }
}
