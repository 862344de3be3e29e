// One file on the page: its progress, then its result or its error.
import { deselect, select } from "./compare.js";
import { announce, cloneTemplate, showError } from "./dom.js";
import { UPLOAD, isRetryable } from "./job_state.js";
import { fetchJson } from "./server.js";
import { nextState } from "./state_machine.js";
import { className, probabilityText } from "./text.js";
import { show } from "./viewer.js";

export class Job {
  constructor(results, name, { isOpen, onChange, onRetry }) {
    Object.assign(this, { name, isOpen, onChange, onRetry, state: "waiting" });
    this.article = cloneTemplate("job-template");
    this.part = (key) => this.article.querySelector(`[data-part="${key}"]`);
    this.article.querySelector(".name").textContent = name;
    this.meter = this.part("meter");
    this.meter.setAttribute("aria-label", `Progress of ${name}`);
    this.showState("Waiting");
    this.#wire();
    results.append(this.article);
  }

  #wire() {
    const actions = {
      dismiss: () => this.#dismiss(), retry: () => this.onRetry(this), force: () => this.#force(),
      delete: () => this.#confirmDelete(),
      compare: () => select({ button: this.part("compare"), name: this.name, result: this.result }),
      open: () => this.toggle(!this.isOpen),
    };
    for (const [key, act] of Object.entries(actions)) {
      this.part(key).addEventListener("click", act);
      this.part(key).setAttribute("aria-label", `${this.part(key).textContent.trim()}: ${this.name}`);
    }
  }

  on(event) { this.state = nextState(UPLOAD, this.state, event); }

  showState(text) { this.part("state").textContent = text; }

  // From 0 to 1, or null while the server works.
  showProgress(share) {
    if (share === null) this.meter.removeAttribute("value"); else this.meter.value = 100 * share;
  }

  restart() {
    this.on("restart");
    this.article.classList.remove("failed-job");
    for (const key of ["failure", "retry", "force"]) this.part(key).hidden = true;
    this.article.querySelector(".job-head").after(this.meter);
    this.showProgress(0);
    this.showState("Waiting");
    this.onChange();
  }

  succeed(result) {
    this.on("succeed");
    if (this.state === "removed") return;
    const { finding } = result;
    this.result = result;
    const hasShare = typeof finding.confidence === "number" && finding.level !== "none seen";
    const anyway = result.suitability?.ok === false ? "Analysed anyway · " : "";
    this.showState(`${anyway}${finding.title}${hasShare ? ` · ${probabilityText(finding.confidence)}` : ""}`);
    this.part("state").classList.add(className(finding.level));
    this.article.querySelector(`.job-head [data-icon="${finding.level}"]`).hidden = false;
    for (const key of ["compare", "delete", "open"]) this.part(key).hidden = false;
    this.article.classList.add("done");
    this.meter.remove();
    this.toggle(this.isOpen);
    announce(`${this.name}: ${anyway}${finding.title}.`);
    this.onChange();
  }

  fail(error) {
    this.on("fail");
    if (this.state === "removed") return;
    this.showState("Not analysed");
    showError(this.part("failure-text"), error);
    this.part("failure").hidden = false;
    this.part("retry").hidden = !isRetryable(error);
    this.part("force").hidden = !error.reason;
    this.article.classList.add("failed-job");
    this.meter.remove();
    announce(`${this.name}: not analysed. ${error.message}`);
    this.onChange();
  }

  // The server has said that it does not look like a radiograph of a limb; the reader wants it analysed all the same.
  #force() {
    this.isForced = true;
    this.onRetry(this);
  }

  toggle(isOpen) {
    this.isOpen = isOpen;
    const button = this.part("open");
    button.textContent = isOpen ? "Close" : "Open";
    button.setAttribute("aria-label", `${button.textContent}: ${this.name}`);
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) {
      this.viewer ??= show(this.part("viewer"), this.result, { onFeedback: (feedback) => { this.result.feedback = feedback; } });
    }
    this.part("viewer").hidden = !isOpen;
  }

  remove() {
    deselect(this.part("compare"));
    this.viewer?.destroy();
    const next = this.article.nextElementSibling ?? this.article.previousElementSibling;
    this.article.remove();
    (next?.querySelector(".job-head button:not([hidden])") ?? document.getElementById("files"))?.focus();
    this.on("remove");
    this.onChange();
  }

  // A job whose feedback could not be saved stays on the page.
  async #dismiss() {
    const isSaved = await (this.viewer?.feedback?.settle() ?? true);
    if (this.state === "removed") return;
    if (isSaved) { this.remove(); return; }
    this.toggle(true);
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
