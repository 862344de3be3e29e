// The form for a reader's feedback: each box right or wrong, missed fractures, their types, no fracture, a comment. Saved on
// change.
import { announce, showError } from "./dom.js";
import {
  SAVING, addMissed, feedbackOf, isInProgress, isSaved, judge, removeMissed, requestBody, sayNoFracture, setMissedType, setType,
  takeBackNoFracture,
} from "./feedback_state.js";
import { fetchJson } from "./server.js";
import { nextState } from "./state_machine.js";
import { plural } from "./text.js";
import { choose, typeChoice } from "./types.js";

const TYPING_MS = 900;

export class Feedback {
  constructor(viewer, onSaved) {
    Object.assign(this, { viewer, onSaved, part: viewer.part, url: viewer.result.links.feedback });
    this.content = feedbackOf(viewer.result.feedback);
    this.state = "saved";
    this.request = 0; // the latest one sent; responses to earlier ones say nothing about what was said since
    if (viewer.result.feedback) this.#showSaved(viewer.result.feedback);
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
    part("kept").textContent = days ? `Feedback is kept with the image for ${plural(days, "day", "days")}.` : "";
    part("comment").id = `comment-${viewer.key}`;
    part("comment-label").htmlFor = part("comment").id;
    part("comment").value = viewer.result.feedback?.comment ?? "";
    part("comment").addEventListener("input", () => this.#change(TYPING_MS));
    part("comment").addEventListener("change", () => this.#change());
    part("no-fracture").addEventListener("click", () => {
      this.#update(this.content.noFracture ? takeBackNoFracture(this.content) : sayNoFracture(this.content));
    });
    part("draw").addEventListener("click", () => viewer.use(viewer.tool === "draw" ? "pan" : "draw"));
    part("save-again").addEventListener("click", () => this.#save());
    part("list").addEventListener("click", ({ target }) => {
      const button = target.closest("[data-verdict]");
      if (button) this.judge(Number(button.dataset.box), button.dataset.verdict);
    });
    this.warn = (event) => { if (!isSaved(this.state)) event.preventDefault(); };
    this.flush = () => { if (document.visibilityState === "hidden" && !isSaved(this.state)) this.#send({ isLeaving: true }); };
    addEventListener("beforeunload", this.warn);
    addEventListener("visibilitychange", this.flush, true);
  }

  destroy() {
    if (!this.url) return;
    this.#save();
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

  // Shows the verdicts in the list of boxes, and the list of missed fractures.
  render() {
    if (!this.url) return;
    this.part("no-fracture").setAttribute("aria-pressed", String(this.content.noFracture));
    for (const button of this.part("list").querySelectorAll("[data-verdict]")) {
      const isPressed = this.verdictOf(Number(button.dataset.box)) === button.dataset.verdict;
      button.setAttribute("aria-pressed", String(isPressed));
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
    this.#showState("Not saved yet");
    clearTimeout(this.timer);
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

  async #send({ isLeaving = false } = {}) {
    clearTimeout(this.timer);
    this.#on("send");
    this.#showState("Saving…");
    const request = this.request += 1;
    const json = requestBody(this.content, this.part("comment").value);
    try {
      const saved = await fetchJson("PUT", this.url, { json, keepalive: isLeaving });
      if (request !== this.request) return;
      this.#on("succeed");
      this.viewer.result.feedback = saved;
      this.onSaved?.(saved);
      if (this.state === "changed") this.#change(); else this.#showSaved(saved);
    } catch (error) {
      if (request !== this.request) return;
      this.#on("fail");
      showError(this.part("saved"), error, "Not saved. ");
      this.part("saved").classList.add("unsaved");
      this.part("save-again").hidden = false;
    }
  }

  #showSaved({ author, updated_at: at }) {
    const time = at ? new Date(at) : new Date();
    const when = time.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    this.#showState(`Saved ${when}${author ? ` by ${author}` : ""}`);
  }

  #showState(text) {
    this.part("saved").textContent = text;
    this.part("saved").classList.remove("unsaved");
    this.part("save-again").hidden = true;
  }
}
