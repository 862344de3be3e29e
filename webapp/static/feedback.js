// The reader's own opinion: each box right or wrong, missed fractures, no fracture, a comment. Saved at each click.
import { ask, tell } from "./server.js";
import { announce, plural } from "./words.js";

const TYPING_MS = 900;

export class Feedback {
  constructor(reader, onSaved) {
    Object.assign(this, { reader, onSaved, part: reader.part, url: reader.result.links.feedback });
    this.#take(reader.result.feedback);
    this.part("feedback").hidden = !this.url;
    this.part("draw").hidden = !this.url;
    reader.element.classList.toggle("with-feedback", Boolean(this.url));
    if (this.url) this.#wire();
  }

  verdictOf(number) { return this.verdicts.get(number); }

  #take(given) {
    this.verdicts = new Map((given?.boxes ?? []).map(({ number, verdict }) => [number, verdict]));
    this.missed = given?.missed ?? [];
    this.noFracture = given?.no_fracture ?? false;
    this.setAside = null; // what "no fracture" excludes, until it is taken back
    if (given) this.#sayWho(given);
  }

  #wire() {
    const { part, reader } = this;
    const days = reader.result.feedback_days;
    part("kept").textContent = days ? `Kept with its image for ${plural(days, "day", "days")}.` : "";
    part("comment").id = `comment-${reader.key}`;
    part("comment-label").htmlFor = part("comment").id;
    part("comment").value = reader.result.feedback?.comment ?? "";
    part("comment").addEventListener("input", () => this.#saveSoon(TYPING_MS));
    part("comment").addEventListener("change", () => this.#saveSoon(0));
    part("no-fracture").addEventListener("click", () => this.sayNoFracture(!this.noFracture));
    part("draw").addEventListener("click", () => reader.use(reader.tool === "draw" ? "pan" : "draw"));
    part("save-again").addEventListener("click", () => this.#saveSoon(0));
    part("list").addEventListener("click", ({ target }) => {
      const button = target.closest("[data-verdict]");
      if (button) this.judge(Number(button.dataset.box), button.dataset.verdict);
    });
    this.warn = (event) => { if (this.isDirty) event.preventDefault(); };
    this.flush = () => { if (document.visibilityState === "hidden" && this.isDirty) this.#save(true); };
    addEventListener("beforeunload", this.warn);
    addEventListener("visibilitychange", this.flush, true);
  }

  leave() {
    if (!this.url) return;
    if (this.isDirty) this.#save();
    removeEventListener("beforeunload", this.warn);
    removeEventListener("visibilitychange", this.flush, true);
  }

  // Whether all is saved, after a last try.
  async settle() {
    clearTimeout(this.timer);
    await this.saving;
    if (this.isDirty) await this.#save();
    return !this.isDirty;
  }

  // The result is gone, and with it what was said of it.
  abandon() {
    clearTimeout(this.timer);
    this.isDirty = false;
  }

  // A second click takes the verdict back.
  judge(number, verdict) {
    if (!this.url) return;
    const isTakenBack = this.verdicts.get(number) === verdict;
    if (isTakenBack) this.verdicts.delete(number); else this.verdicts.set(number, verdict);
    if (verdict === "right" && !isTakenBack) this.#thereIsOne();
    announce(isTakenBack ? `Box ${number}: verdict taken back` : `Box ${number} is ${verdict}`);
    this.#changed();
  }

  addMissed(box) {
    this.missed = [...this.missed, box];
    this.#thereIsOne();
    announce(`Missed fracture ${this.missed.length} drawn`);
    this.#changed();
  }

  sayNoFracture(isSaid) {
    if (!this.url) return;
    if (isSaid) {
      this.setAside = { verdicts: new Map(this.verdicts), missed: this.missed };
      this.missed = [];
      for (const [number, verdict] of this.verdicts) if (verdict === "right") this.verdicts.delete(number);
    } else if (this.setAside) {
      this.missed = this.setAside.missed;
      this.verdicts = new Map([...this.setAside.verdicts, ...this.verdicts]);
    }
    this.noFracture = isSaid;
    this.#changed();
  }

  #thereIsOne() {
    this.noFracture = false;
    this.setAside = null;
  }

  #changed() {
    this.reader.mark();
    this.#saveSoon(0);
  }

  // Shows the verdicts in the list of boxes, and the list of missed fractures.
  markList() {
    if (!this.url) return;
    this.part("no-fracture").setAttribute("aria-pressed", String(this.noFracture));
    for (const button of this.part("list").querySelectorAll("[data-verdict]")) {
      const isSaid = this.verdicts.get(Number(button.dataset.box)) === button.dataset.verdict;
      button.setAttribute("aria-pressed", String(isSaid));
    }
    this.part("missed").replaceChildren(...this.missed.map((box, index) => this.#missedEntry(index)));
  }

  #missedEntry(index) {
    const item = document.createElement("li");
    const remove = Object.assign(document.createElement("button"), { type: "button", className: "ghost", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove missed fracture ${index + 1}`);
    remove.addEventListener("click", () => {
      this.missed = this.missed.filter((_, other) => other !== index);
      this.part("draw").focus();
      this.#changed();
    });
    item.append(`Missed fracture ${index + 1}`, remove);
    return item;
  }

  #saveSoon(delay_ms) {
    this.isDirty = true;
    this.#say("Not saved yet");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#save(), delay_ms);
  }

  #document() {
    const boxes = [...this.verdicts].sort(([a], [b]) => a - b).map(([number, verdict]) => ({ number, verdict }));
    return { boxes, missed: this.missed, no_fracture: this.noFracture, comment: this.part("comment").value };
  }

  // One at a time and in order; what changes meanwhile goes with the next.
  async #save(isLeaving = false) {
    clearTimeout(this.timer);
    if (this.isSaving && !isLeaving) { this.isOverdue = true; return; }
    this.saving = this.#send(isLeaving);
    await this.saving;
  }

  async #send(isLeaving) {
    this.isSaving = true;
    const sent = JSON.stringify(this.#document());
    this.#say("Saving…");
    try {
      const saved = await ask("PUT", this.url, { json: JSON.parse(sent), keepalive: isLeaving });
      this.isDirty = sent !== JSON.stringify(this.#document());
      this.reader.result.feedback = saved;
      this.#sayWho(saved);
      this.onSaved?.(saved);
    } catch (error) {
      this.isOverdue = false;
      tell(this.part("saved"), error, "Not saved. ");
      this.part("saved").classList.add("unsaved");
      this.part("save-again").hidden = false;
    } finally {
      this.isSaving = false;
      if (this.isOverdue || (this.isDirty && this.part("save-again").hidden)) { this.isOverdue = false; this.#saveSoon(0); }
    }
  }

  #sayWho({ author, updated_at: at }) {
    const time = at ? new Date(at) : new Date();
    const when = time.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    this.#say(`Saved ${when}${author ? ` by ${author}` : ""}`);
  }

  #say(text) {
    this.part("saved").textContent = text;
    this.part("saved").classList.remove("unsaved");
    this.part("save-again").hidden = true;
  }
}
