// The radiographs of the page: one alone is shown alone; several are a list by suspicion beside the one that is chosen.
import { announce, cloneTemplate } from "./dom.js";
import { summarise } from "./job_state.js";
import { remember } from "./session.js";
import { className } from "./text.js";
import { arrange, countText, firstChoice, groupOf, isReadable, neighbour, scoreWords } from "./worklist_state.js";

const MINI_PX = 144;
const NARROW = matchMedia("(max-width: 52rem)"); // as in worklist.css
const WORDS = { likely: "Likely", possible: "Possible", "none seen": "None seen" };
let count = 0;

export class Worklist {
  // `retry` starts a job anew.
  constructor({ retry }) {
    Object.assign(this, { retry, jobs: [], rows: new Map(), chosen: null, hasChosen: false });
    this.place = document.getElementById("worklist");
    this.shown = document.getElementById("shown");
    this.list = document.getElementById("worklist-rows");
    this.part = (name) => document.getElementById(`worklist-${name}`);
    this.#wire();
  }

  #wire() {
    this.list.addEventListener("click", ({ target }) => {
      const job = this.#jobOf(target.closest("[role=option]"));
      if (!job) return;
      if (target.closest(".tick")) { this.tick(job); return; }
      this.choose(job);
      if (NARROW.matches) this.#open(false);
    });
    this.list.addEventListener("keydown", (event) => { if (this.#press(event)) event.preventDefault(); });
    this.part("unread").addEventListener("change", () => this.render());
    this.part("previous").addEventListener("click", () => this.step(-1));
    this.part("next").addEventListener("click", () => this.step(1));
    this.part("clear").addEventListener("click", () => this.#clear());
    this.part("toggle").addEventListener("click", () => this.#open(!this.isOpen));
    this.#open(true);
  }

  // Returns whether the key did something.
  #press({ key, ctrlKey, altKey, metaKey }) {
    if (ctrlKey || altKey || metaKey) return false;
    const steps = { ArrowDown: 1, ArrowUp: -1, Home: -this.jobs.length, End: this.jobs.length }[key];
    if (steps) this.step(steps);
    else if ((key === "Enter" || key === " ") && this.chosen) this.tick(this.chosen);
    else return false;
    return true;
  }

  get hasSeveral() { return this.jobs.length > 1; }

  add(jobs) {
    for (const job of jobs) {
      const row = cloneTemplate("row-template");
      row.id = `row-${count += 1}`;
      row.querySelector(".row-name").textContent = job.name;
      this.rows.set(job, row);
      this.jobs.push(job);
      job.article.hidden = true;
      this.shown.append(job.article);
    }
    this.render();
  }

  choose(job) {
    Object.assign(this, { chosen: job, hasChosen: true });
    this.render();
    this.rows.get(job)?.scrollIntoView({ block: "nearest" });
  }

  step(by) {
    const next = neighbour(this.order, this.chosen, by);
    if (!next || next === this.chosen) return;
    this.choose(next);
    if (document.activeElement !== this.list) announce(`${next.name}: ${next.text}`);
  }

  // Ticks a radiograph as read, or takes that back.
  tick(job) {
    if (!isReadable(job)) { announce(`${job.name} is not analysed yet.`); return; }
    job.isRead = !job.isRead;
    this.render();
    announce(`${job.name}: ${job.isRead ? "read" : "not read"}. ${countText(this.jobs)}.`);
  }

  changed(job) {
    if (!this.rows.has(job)) return;
    if (!this.hasChosen) this.chosen = firstChoice(this.#flat(), this.chosen);
    this.render();
  }

  showText(job) {
    const row = this.rows.get(job);
    if (row) row.querySelector(".row-state").textContent = stateWords(job);
  }

  removed(job) {
    const next = this.order[this.order.indexOf(job) + 1] ?? this.order[this.order.indexOf(job) - 1] ?? null;
    const hadFocus = job.article.contains(document.activeElement) || document.querySelector("dialog[open]");
    this.jobs = this.jobs.filter((other) => other !== job);
    this.rows.get(job)?.remove();
    this.rows.delete(job);
    if (this.chosen === job) this.chosen = this.jobs.includes(next) ? next : null;
    this.render();
    if (hadFocus || document.activeElement === document.body) this.#focus();
  }

  #focus() {
    const button = this.chosen?.article.querySelector(".job-head button:not([hidden])");
    (this.hasSeveral ? this.list : button ?? document.getElementById("files")).focus();
  }

  async #clear() {
    for (const job of this.jobs.filter(isReadable)) await job.dismiss();
  }

  // On a phone the list is a drawer above the radiograph.
  #open(isOpen) {
    this.isOpen = isOpen;
    this.place.classList.toggle("closed", !isOpen);
    this.part("toggle").setAttribute("aria-expanded", String(isOpen));
  }

  #jobOf(row) { return this.jobs.find((job) => this.rows.get(job) === row); }

  #flat() { return this.groups(null).flatMap(({ entries }) => entries); }

  groups(chosen = this.chosen) { return arrange(this.jobs, { onlyUnread: this.part("unread").checked, chosen }); }

  render() {
    if (!this.chosen && this.jobs.length) this.chosen = firstChoice(this.#flat(), null) ?? this.jobs[0];
    const groups = this.groups();
    this.order = groups.flatMap(({ entries }) => entries);
    document.body.classList.toggle("working", this.hasSeveral);
    this.place.hidden = !this.hasSeveral;
    for (const job of this.jobs) {
      if (job.isShown !== (job === this.chosen)) job.toggle(job === this.chosen);
      job.showRead(this.hasSeveral);
      this.#fill(job);
    }
    this.#arrange(groups);
    document.getElementById("summary").textContent = summarise(this.jobs);
    this.part("count").textContent = countText(this.jobs);
    this.part("place").textContent = `${this.order.indexOf(this.chosen) + 1} / ${this.order.length}`;
    const active = this.rows.get(this.chosen);
    if (active) this.list.setAttribute("aria-activedescendant", active.id);
    else this.list.removeAttribute("aria-activedescendant");
    this.#remember();
  }

  #fill(job) {
    const row = this.rows.get(job);
    const { result } = job;
    row.className = `row-entry ${className(groupOf(job))}`;
    row.setAttribute("aria-selected", String(job === this.chosen));
    row.setAttribute("aria-checked", String(job.isRead));
    row.querySelector(".row-state").textContent = stateWords(job);
    for (const icon of row.querySelectorAll("[data-icon]")) icon.hidden = icon.dataset.icon !== groupOf(job);
    if (!result || row.dataset.filled) return;
    row.dataset.filled = "";
    const study = [result.source, result.study_label].filter(Boolean).join(" · ");
    row.querySelector(".row-study").hidden = !study;
    row.querySelector(".row-study").textContent = study;
    const at = new Date(result.created_at);
    const time = row.querySelector("time");
    Object.assign(time, { dateTime: result.created_at, title: at.toLocaleString() });
    time.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const mini = row.querySelector("img");
    mini.hidden = !result.links.overlay;
    if (result.links.overlay) mini.src = `${result.links.overlay}?longest_px=${MINI_PX}`;
  }

  // Rows move only when their order changes, so that the list does not jump under a reader.
  #arrange(groups) {
    const order = JSON.stringify(groups.map(({ key, entries }) => [key, entries.map((job) => this.rows.get(job).id)]));
    if (order === this.arranged) return;
    this.arranged = order;
    this.list.replaceChildren(...groups.map(({ key, title, entries }) => {
      const group = cloneTemplate("group-template");
      const heading = group.querySelector("li");
      heading.id = `group-${className(key)}`;
      heading.classList.add(className(key));
      heading.textContent = `${title} (${entries.length})`;
      group.setAttribute("aria-labelledby", heading.id);
      group.append(...entries.map((job) => this.rows.get(job)));
      return group;
    }));
  }

  #remember() {
    const jobs = this.jobs.map(({ name, self, isRead, error, state }) => ({
      name, self, isRead, error: state === "failed" ? error.message : null,
    }));
    remember({ jobs, chosen: this.hasChosen ? this.jobs.indexOf(this.chosen) : -1, onlyUnread: this.part("unread").checked });
  }
}

function stateWords(job) {
  const { result, state } = job;
  if (state !== "done") return job.text;
  const words = [WORDS[result.finding.level], scoreWords(job)].filter(Boolean).join(" ");
  return result.suitability?.ok === false ? `${words} · analysed anyway` : words;
}
