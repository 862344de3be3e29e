// One radiograph on the page, an upload or a result that the server has already: its progress, then its result or its error.
import { deselect, select } from "./compare.js";
import { announce, cloneTemplate, showError } from "./dom.js";
import { UPLOAD, isRetryable } from "./job_state.js";
import { fetchJson } from "./server.js";
import { nextState } from "./state_machine.js";
import { className, probabilityText } from "./text.js";
import { show } from "./viewer.js";

export class Job {
  // Of an upload there is a `file` and a `key`, of a stored result its address `self`. `list` hears of what changes.
  constructor(name, { file = null, key = null, self = null, isRead = false, list }) {
    Object.assign(this, { name, file, key, self, isRead, list, state: "waiting", isShown: false });
    this.article = cloneTemplate("job-template");
    this.part = (key_) => this.article.querySelector(`[data-part="${key_}"]`);
    this.article.querySelector(".name").textContent = name;
    this.meter = this.part("meter");
    this.meter.setAttribute("aria-label", `Progress of ${name}`);
    this.showState(self ? "Loading" : "Waiting");
    this.#wire();
  }

  #wire() {
    const actions = {
      dismiss: () => this.dismiss(), retry: () => this.list.retry(this), force: () => this.#force(),
      delete: () => this.#confirmDelete(), read: () => this.list.tick(this),
      compare: () => select({ button: this.part("compare"), name: this.name, result: this.result }),
    };
    for (const [key, act] of Object.entries(actions)) {
      this.part(key).addEventListener("click", act);
      this.part(key).setAttribute("aria-label", `${this.part(key).textContent.trim()}: ${this.name}`);
    }
  }

  on(event) { this.state = nextState(UPLOAD, this.state, event); }

  showState(text) {
    this.text = text;
    this.part("state").textContent = text;
    this.list.showText(this);
  }

  // From 0 to 1, or null while the server works.
  showProgress(share) {
    if (share === null) this.meter.removeAttribute("value"); else this.meter.value = 100 * share;
  }

  restart() {
    this.on("restart");
    this.isRead = false;
    this.error = null;
    this.article.classList.remove("failed-job");
    for (const key of ["failure", "retry", "force"]) this.part(key).hidden = true;
    this.article.querySelector(".job-head").after(this.meter);
    this.showProgress(0);
    this.showState(this.self ? "Loading" : "Waiting");
    this.list.changed(this);
  }

  // `event` is "succeed" after an upload and "open" for a result that was there.
  succeed(result, event = "succeed") {
    this.on(event);
    if (this.state === "removed") return;
    const { finding } = result;
    Object.assign(this, { result, self: result.links.self, file: null });
    const hasShare = typeof finding.confidence === "number" && finding.level !== "none seen";
    const anyway = result.suitability?.ok === false ? "Analysed anyway · " : "";
    this.showState(`${anyway}${finding.title}${hasShare ? ` · ${probabilityText(finding.confidence)}` : ""}`);
    this.part("state").classList.add(className(finding.level));
    this.article.querySelector(`.job-head [data-icon="${finding.level}"]`).hidden = false;
    for (const key of ["compare", "delete"]) this.part(key).hidden = false;
    this.article.classList.add("done");
    this.meter.remove();
    if (event === "succeed") announce(`${this.name}: ${anyway}${finding.title}.`);
    this.list.changed(this);
    this.#showViewer();
  }

  fail(error) {
    this.on("fail");
    if (this.state === "removed") return;
    this.error = error;
    const text = this.self ? "Not loaded" : "Not analysed";
    this.showState(text);
    showError(this.part("failure-text"), error);
    this.part("failure").hidden = false;
    this.part("retry").hidden = !isRetryable(error) || !(this.file || this.self);
    this.part("force").hidden = !error.reason || !this.file;
    this.article.classList.add("failed-job");
    this.meter.remove();
    announce(`${this.name}: ${text.toLowerCase()}. ${error.message}`);
    this.list.changed(this);
  }

  // The server has said that it does not look like a radiograph of a limb; the reader wants it analysed all the same.
  #force() {
    this.isForced = true;
    this.list.retry(this);
  }

  // Shows it, or another in its place. A viewer that was once open keeps its window, its slider and what was not saved.
  toggle(isShown) {
    this.isShown = isShown;
    this.article.hidden = !isShown;
    this.#showViewer();
  }

  #showViewer() {
    if (!this.isShown || !this.result) return;
    this.viewer ??= show(this.part("viewer"), this.result, { onFeedback: (feedback) => { this.result.feedback = feedback; } });
  }

  showRead(isInList) {
    this.part("read").hidden = !isInList;
    this.part("read").setAttribute("aria-pressed", String(this.isRead));
  }

  remove() {
    deselect(this.part("compare"));
    this.viewer?.destroy();
    this.on("remove");
    this.list.removed(this);
    this.article.remove();
  }

  // Takes it off the page. One whose feedback could not be saved stays.
  async dismiss() {
    const isSaved = await (this.viewer?.feedback?.settle() ?? true);
    if (this.state === "removed") return;
    if (isSaved) { this.remove(); return; }
    this.list.choose(this);
    announce(`${this.name}: your feedback is not saved yet.`);
  }

  #confirmDelete() {
    confirmDelete(this.name, this.result.links.self, () => {
      announce(`${this.name}: deleted.`);
      this.viewer?.feedback?.abandon();
      this.remove();
    });
  }
}

export function confirmDelete(name, url, onDone) {
  const dialog = document.getElementById("delete");
  const [text, yes, failure] = ["text", "yes", "failure"].map((part) => document.getElementById(`delete-${part}`));
  text.textContent = name;
  failure.replaceChildren();
  yes.onclick = async () => {
    yes.disabled = true;
    try {
      await fetchJson("DELETE", url).catch((error) => { if (error.status !== 404) throw error; });
      dialog.close();
      onDone();
    } catch (error) {
      showError(failure, error, "Not deleted. ");
    } finally {
      yes.disabled = false;
    }
  };
  dialog.showModal();
}
