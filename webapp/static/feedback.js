// The form for a reading: each box right, moved or wrong, missed fractures, their types, no fracture, not readable, a comment.
// A reader's is saved on change, an adjudicator's when it is settled.
import { announce, showError } from "./dom.js";
import {
  SAVING, addMissed, feedbackOf, isInProgress, isSaved, judge, moveBox, removeMissed, requestBody, sayNoFracture, sayUnreadable,
  setMissedType, setReason, setType, takeBack,
} from "./feedback_state.js";
import { Stopwatch, runWhileInView } from "./reading_time.js";
import { fillOthers, whenOf } from "./readings.js";
import { fetchJson } from "./server.js";
import { nextState } from "./state_machine.js";
import { plural } from "./text.js";
import { choose, typeChoice } from "./types.js";

const TYPING_MS = 900;

export class Feedback {
  // `isSettling`: the form is for what an adjudicator settles.
  constructor(viewer, onSaved, { isSettling = false } = {}) {
    const { links, feedback, settled } = viewer.result;
    Object.assign(this, { viewer, onSaved, isSettling, part: viewer.part, url: isSettling ? links.settlement : links.feedback });
    const saved = isSettling ? settled : feedback;
    this.content = feedbackOf(saved);
    this.comment = saved?.comment ?? "";
    this.watch = new Stopwatch(saved?.seconds ?? 0);
    this.state = "saved";
    this.request = 0; // the latest one sent; responses to earlier ones say nothing about what was said since
    if (saved) this.#showSaved(saved);
    if (!isSettling) fillOthers(this.part, viewer.result);
    this.part("feedback").hidden = !this.url;
    this.part("draw").hidden = !this.url;
    viewer.element.classList.toggle("with-feedback", Boolean(this.url));
    if (this.url) this.#wire();
  }

  get missed() { return this.content.missed; }

  verdictOf(number) { return this.content.verdicts.get(number); }

  #wire() {
    const { part, viewer } = this;
    const days = viewer.result.feedback_days;
    part("kept").textContent = days
      ? `Feedback is kept with the image for ${plural(days, "day", "days")}, with how long the image was in view.` : "";
    part("comment").id = `comment-${viewer.key}`;
    part("comment-label").htmlFor = part("comment").id;
    part("reason-label").htmlFor = part("reason").id = `reason-${viewer.key}`;
    part("comment").value = this.comment;
    part("reason").addEventListener("input", () => { this.content = setReason(this.content, part("reason").value); });
    for (const key of ["comment", "reason"]) {
      part(key).addEventListener("input", () => this.#change(TYPING_MS));
      part(key).addEventListener("change", () => this.#change());
    }
    part("no-fracture").addEventListener("click", () => {
      this.#update(this.content.noFracture ? takeBack(this.content) : sayNoFracture(this.content));
    });
    part("unreadable").addEventListener("click", () => {
      this.#update(this.content.unreadable ? takeBack(this.content) : sayUnreadable(this.content));
    });
    this.stopWatching = runWhileInView(this.watch, viewer.element);
    part("draw").addEventListener("click", () => viewer.use(viewer.tool === "draw" ? "pan" : "draw"));
    part("save-again").addEventListener("click", () => this.#save());
    part("list").addEventListener("click", ({ target }) => {
      const button = target.closest("[data-verdict]");
      if (button) this.judge(Number(button.dataset.box), button.dataset.verdict);
      const move = target.closest("[data-move]");
      if (move) this.beginMove(Number(move.dataset.move));
    });
    part("settle").addEventListener("click", () => this.#sendSettlement());
    this.warn = (event) => { if (!isSaved(this.state)) event.preventDefault(); };
    this.flush = () => {
      if (document.visibilityState === "hidden" && !isSaved(this.state) && !this.isSettling) this.#send({ isLeaving: true });
    };
    addEventListener("beforeunload", this.warn);
    addEventListener("visibilitychange", this.flush, true);
  }

  destroy() {
    if (!this.url) return;
    if (!this.isSettling) this.#save();
    this.stopWatching();
    removeEventListener("beforeunload", this.warn);
    removeEventListener("visibilitychange", this.flush, true);
  }

  // Whether everything is saved, after a last try.
  async settle() {
    clearTimeout(this.timer);
    await this.saving;
    await this.#save();
    return isSaved(this.state);
  }

  // The result was deleted, and its feedback with it.
  abandon() {
    clearTimeout(this.timer);
    this.#on("delete");
  }

  judge(number, verdict) {
    if (!this.url) return;
    const isTakenBack = this.verdictOf(number) === verdict;
    announce(isTakenBack ? `Box ${number}: verdict removed` : `Box ${number} is ${verdict}`);
    this.#update(judge(this.content, number, verdict));
  }

  addMissed(box) {
    announce(`Missed fracture ${this.missed.length + 1} drawn`);
    this.#update(addMissed(this.content, box));
  }

  // Lets the reader move a box, from where it is or was put before.
  beginMove(number) {
    const box = this.viewer.result.detections.find((other) => other.number === number);
    if (!this.url || !box) return;
    this.viewer.select(number);
    this.viewer.use("move", { number, box: this.content.moved.get(number) ?? box.box_xyxy_px });
  }

  moveBox(number, box) {
    announce(`Box ${number} was moved`);
    this.#update(moveBox(this.content, number, box));
  }

  movedTo(number) { return this.content.moved.get(number); }

  // Takes over what somebody has said.
  take(reading) {
    this.part("comment").value = "";
    announce(`The reading of ${reading.author} is taken over. Press Settle to settle it.`);
    this.#update(feedbackOf(reading));
  }

  // Shows the verdicts in the list of boxes, and the list of missed fractures.
  render() {
    if (!this.url) return;
    this.part("no-fracture").setAttribute("aria-pressed", String(this.content.noFracture));
    this.part("unreadable").setAttribute("aria-pressed", String(this.content.unreadable));
    this.part("why").hidden = !this.content.unreadable;
    if (this.part("reason").value !== this.content.reason) this.part("reason").value = this.content.reason;
    for (const button of this.part("list").querySelectorAll("[data-verdict]")) {
      const number = Number(button.dataset.box);
      const isPressed = this.verdictOf(number) === button.dataset.verdict && !this.movedTo(number);
      button.setAttribute("aria-pressed", String(isPressed));
    }
    for (const button of this.part("list").querySelectorAll("[data-move]")) {
      button.setAttribute("aria-pressed", String(Boolean(this.movedTo(Number(button.dataset.move)))));
    }
    for (const item of this.part("list").children) this.#showType(item, Number(item.querySelector("[data-verdict]").dataset.box));
    this.part("missed").replaceChildren(...this.missed.map((box, index) => this.#missedItem(index)));
  }

  // Puts the focus on the choice of a type, where the box has one.
  chooseType(number) {
    this.part("list").querySelector(`select[data-box="${number}"]`)?.focus();
  }

  // The choice of a type for a right box, below it in the list.
  #showType(item, number) {
    const select = item.querySelector("select");
    const type = this.content.types.get(number);
    if (this.verdictOf(number) !== "right") select?.remove();
    else if (select) choose(select, type);
    else {
      const made = typeChoice(type, `Type of the fracture in box ${number}`, (chosen) => {
        this.content = setType(this.content, number, chosen);
        this.#change();
      });
      made.dataset.box = number;
      item.append(made);
    }
  }

  #missedItem(index) {
    const item = document.createElement("li");
    const remove = Object.assign(document.createElement("button"), { type: "button", className: "ghost", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove missed fracture ${index + 1}`);
    remove.addEventListener("click", () => {
      this.part("draw").focus();
      this.#update(removeMissed(this.content, index));
    });
    const type = typeChoice(this.content.missedTypes[index], `Type of missed fracture ${index + 1}`, (chosen) => {
      this.content = setMissedType(this.content, index, chosen);
      this.#change();
    });
    item.append(`Missed fracture ${index + 1}`, remove, type);
    return item;
  }

  #update(content) {
    this.content = content;
    this.viewer.renderBoxes();
    this.#change();
  }

  #change(delay_ms = 0) {
    this.#on("change");
    this.#showState(this.isSettling ? "Not settled yet" : "Not saved yet");
    clearTimeout(this.timer);
    if (this.isSettling) return;
    this.timer = setTimeout(() => this.#save(), delay_ms);
  }

  #on(event) { this.state = nextState(SAVING, this.state, event); }

  // One request at a time and in order; what changes meanwhile goes with the next.
  async #save() {
    if (isSaved(this.state)) return;
    clearTimeout(this.timer);
    if (!isInProgress(this.state)) this.saving = this.#send();
    await this.saving;
  }

  // What was settled before may be settled again as it is.
  #sendSettlement() {
    if (this.state === "saved") this.#on("change");
    this.#save();
  }

  async #send({ isLeaving = false } = {}) {
    clearTimeout(this.timer);
    this.#on("send");
    this.#showState("Saving…");
    const request = this.request += 1;
    const json = requestBody(this.content, this.part("comment").value, this.watch.seconds);
    try {
      const saved = await fetchJson("PUT", this.url, { json, keepalive: isLeaving });
      if (request !== this.request) return;
      this.#on("succeed");
      this.viewer.result[this.isSettling ? "settled" : "feedback"] = saved;
      this.onSaved?.(saved);
      if (!this.isSettling && this.viewer.result.hidden_readings) this.#showOthers();
      if (this.state === "changed") this.#change(); else this.#showSaved(saved);
    } catch (error) {
      if (request !== this.request) return;
      this.#on("fail");
      showError(this.part("saved"), error, "Not saved. ");
      this.part("saved").classList.add("unsaved");
      this.part("save-again").hidden = false;
    }
  }

  // The readings of others are shown once one's own is finished.
  async #showOthers() {
    const { others, hidden, settled } = await fetchJson("GET", this.viewer.result.links.readings).catch(() => ({ hidden: 1 }));
    if (hidden) return;
    Object.assign(this.viewer.result, { others, hidden_readings: 0, settled });
    fillOthers(this.part, this.viewer.result);
  }

  #showSaved(saved) {
    this.#showState(`${this.isSettling ? "Settled" : "Saved"} ${whenOf(saved)}${saved.author ? ` by ${saved.author}` : ""}`);
  }

  #showState(text) {
    this.part("saved").textContent = text;
    this.part("saved").classList.remove("unsaved");
    this.part("save-again").hidden = true;
  }
}
