// The worklist without its DOM: which entry stands where, what is next, how many are read.
import { number, probabilityText } from "./text.js";

// From the most to the least suspicious. A failure has a place of its own, far from "no fracture seen" in words and colour.
export const GROUPS = [
  { key: "likely", title: "Fracture likely" },
  { key: "possible", title: "Fracture possible" },
  { key: "not analysed", title: "Not analysed" },
  { key: "none seen", title: "No fracture seen" },
  { key: "waiting", title: "Waiting" },
];

// Entries have a `state` as in job_state.js, a `result` when they are done, and `isRead`.
export function groupOf({ state, result }) {
  if (state === "done") return result.finding.level;
  return state === "failed" ? "not analysed" : "waiting";
}

// The probability of a fracture where scores are probabilities, else the highest score; null without any.
export function scoreOf({ result }) {
  return result?.finding.confidence ?? result?.detections[0]?.score ?? null;
}

export function scoreWords({ result }) {
  const score = scoreOf({ result });
  if (score === null) return "";
  return result.calibrated ? probabilityText(score) : number(score);
}

// [{ key, title, entries }] without empty groups. `chosen` stays visible although it is read, until another is chosen.
export function arrange(entries, { onlyUnread = false, chosen = null } = {}) {
  const shown = entries.filter((entry) => entry === chosen || !(onlyUnread && entry.isRead));
  return GROUPS.map(({ key, title }) => {
    const inGroup = shown.filter((entry) => groupOf(entry) === key);
    inGroup.sort((a, b) => (scoreOf(b) ?? 0) - (scoreOf(a) ?? 0)); // stable: equals stay in the order in which they came
    return { key, title, entries: inGroup };
  }).filter(({ entries: inGroup }) => inGroup.length);
}

// The entry `by` places further in `order`, the first or last at its ends.
export function neighbour(order, chosen, by) {
  const here = order.indexOf(chosen);
  if (here < 0) return order[0] ?? null;
  return order[Math.min(Math.max(here + by, 0), order.length - 1)];
}

// What is shown before the reader has chosen: an entry without a result gives way to the first that has one.
export function firstChoice(order, chosen) {
  if (chosen?.state === "done") return chosen;
  return order.find(({ state }) => state === "done") ?? chosen ?? order[0] ?? null;
}

export const isReadable = (entry) => groupOf(entry) !== "waiting";

export function countText(entries) {
  return `${entries.filter(({ isRead }) => isRead).length} of ${entries.length} read`;
}
