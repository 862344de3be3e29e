// One file on the page: its progress, then its result or its refusal.
import { choose, forgetIf } from "./compare.js";
import { ask, tell } from "./server.js";
import { announce, chance, className, copyOf } from "./words.js";
import { show } from "./viewer.js";

export class Job {
  constructor(results, name, { isOpen, onChange, onRetry }) {
    Object.assign(this, { name, isOpen, onChange, onRetry, state: "waiting" });
    this.article = copyOf("job-template");
    this.part = (key) => this.article.querySelector(`[data-part="${key}"]`);
    this.article.querySelector(".name").textContent = name;
    this.part("meter").setAttribute("aria-label", `Progress of ${name}`);
    this.meter = this.part("meter");
    this.say("Waiting");
    this.#wire();
    results.append(this.article);
  }

  #wire() {
    const clicks = {
      dismiss: () => this.#dismiss(), retry: () => this.onRetry(this), delete: () => this.#askToDelete(),
      compare: () => choose({ button: this.part("compare"), name: this.name, result: this.result }),
      open: () => this.toggle(!this.isOpen),
    };
    for (const [key, act] of Object.entries(clicks)) {
      this.part(key).addEventListener("click", act);
      this.part(key).setAttribute("aria-label", `${this.part(key).textContent.trim()}: ${this.name}`);
    }
  }

  say(words) { this.part("state").textContent = words; }

  // From 0 to 1, or null when nobody knows.
  progress(share) {
    if (share === null) this.meter.removeAttribute("value"); else this.meter.value = 100 * share;
  }

  restart() {
    this.state = "waiting";
    this.article.classList.remove("failed-job");
    for (const key of ["failure", "retry"]) this.part(key).hidden = true;
    this.article.querySelector(".job-head").after(this.meter);
    this.progress(0);
    this.say("Waiting");
    this.onChange();
  }

  succeed(result) {
    const { finding } = result;
    this.result = result;
    this.state = finding.level;
    const share = typeof finding.confidence === "number" && finding.level !== "none seen" ? ` · ${chance(finding.confidence)}` : "";
    this.say(`${finding.title}${share}`);
    this.part("state").classList.add(className(finding.level));
    this.article.querySelector(`.job-head [data-icon="${finding.level}"]`).hidden = false;
    for (const key of ["compare", "delete", "open"]) this.part(key).hidden = false;
    this.article.classList.add("done");
    this.meter.remove();
    this.toggle(this.isOpen);
    announce(`${this.name}: ${finding.title}.`);
    this.onChange();
  }

  fail(error) {
    this.state = "failed";
    this.say("Not analysed");
    tell(this.part("failure-text"), error);
    this.part("failure").hidden = false;
    this.part("retry").hidden = !error.mayPass;
    this.article.classList.add("failed-job");
    this.meter.remove();
    announce(`${this.name}: not analysed. ${error.message}`);
    this.onChange();
  }

  toggle(isOpen) {
    this.isOpen = isOpen;
    const button = this.part("open");
    button.textContent = isOpen ? "Close" : "Open";
    button.setAttribute("aria-label", `${button.textContent}: ${this.name}`);
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) {
      this.reader ??= show(this.part("viewer"), this.result, { onFeedback: (feedback) => { this.result.feedback = feedback; } });
    }
    this.part("viewer").hidden = !isOpen;
  }

  leave() {
    forgetIf(this.part("compare"));
    this.reader?.destroy();
    const next = this.article.nextElementSibling ?? this.article.previousElementSibling;
    this.article.remove();
    (next?.querySelector(".job-head button:not([hidden])") ?? document.getElementById("files"))?.focus();
    this.state = "gone";
    this.onChange();
  }

  // What a reader said and the server did not take stays in sight.
  async #dismiss() {
    const isSaved = await (this.reader?.feedback?.settle() ?? true);
    if (this.state === "gone") return;
    if (isSaved) { this.leave(); return; }
    this.toggle(true);
    announce(`${this.name}: your feedback is not saved yet.`);
  }

  #askToDelete() {
    askToDelete(this.name, this.result.links.self, () => {
      announce(`${this.name}: deleted.`);
      this.reader?.feedback?.abandon();
      this.leave();
    });
  }
}

export function askToDelete(name, address, onDone) {
  const dialog = document.getElementById("delete");
  const [words, yes, failure] = ["words", "yes", "failure"].map((part) => document.getElementById(`delete-${part}`));
  words.textContent = name;
  failure.replaceChildren();
  yes.onclick = async () => {
    yes.disabled = true;
    try {
      await ask("DELETE", address).catch((error) => { if (error.status !== 404) throw error; });
      dialog.close();
      onDone();
    } catch (error) {
      tell(failure, error, "Not deleted. ");
    } finally {
      yes.disabled = false;
    }
  };
  dialog.showModal();
}
