// What several readers say of one result: in words, and as marks on the image.
import { cloneTemplate } from "./dom.js";
import { plural } from "./text.js";

const COLOURS = 4; // of readers, in viewer.css

// The boxes that a reading marks: right ones of `detections`, where the reader put them, and those drawn.
export function marksOf(reading, detections) {
  const boxes = new Map(detections.map((box) => [box.number, box.box_xyxy_px]));
  const right = reading.boxes.filter(({ verdict }) => verdict === "right");
  return [...right.map(({ number, moved_to: moved }) => moved ?? boxes.get(number)).filter(Boolean), ...reading.missed];
}

export function wordsOf({ boxes, missed, no_fracture: noFracture, unreadable, reason }) {
  if (unreadable) return reason ? `not readable (${reason})` : "not readable";
  if (noFracture) return "no fracture";
  const count = (verdict) => boxes.filter((box) => box.verdict === verdict).length;
  const moved = boxes.filter((box) => box.moved_to).length;
  const said = [
    count("right") && `${plural(count("right"), "box", "boxes")} right${moved ? ` (${moved} moved)` : ""}`,
    count("wrong") && `${plural(count("wrong"), "box", "boxes")} wrong`, missed.length && `${missed.length} missed`,
  ];
  return said.filter(Boolean).join(", ") || "only a comment";
}

export function whenOf({ updated_at: at }) {
  return new Date(at ?? Date.now()).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// Lists the readings of others below one's own, and how many are not shown yet.
export function fillOthers(part, { others, hidden_readings: hidden, settled }) {
  const named = others.map((reading) => [reading.author, reading]);
  if (settled) named.unshift([`Settled by ${settled.author}`, settled]);
  const items = named.map(([who, reading]) => {
    const item = document.createElement("li");
    const name = Object.assign(document.createElement("strong"), { textContent: who });
    const comment = reading.comment ? ` – “${reading.comment}”` : "";
    item.append(name, ` ${whenOf(reading)}: ${wordsOf(reading)}${comment}`);
    return item;
  });
  part("others").hidden = !items.length && !hidden;
  part("other-list").replaceChildren(...items);
  const readers = plural(hidden, "other reader has", "other readers have");
  part("hidden-readings").textContent = hidden ? `${readers} read this; shown after your own reading.` : "";
}

// Lists the readings of all readers in the form of a viewer that settles, each with its colour and a button that hands it to
// `onTake`; returns what to draw of each.
export function showReaders({ part, element, result }, onTake) {
  element.classList.add("settling");
  part("legend").textContent = "Settle";
  for (const key of ["readers", "settle"]) part(key).hidden = false;
  const readings = [...(result.feedback ? [result.feedback] : []), ...result.others]
    .sort((one, other) => one.author.localeCompare(other.author));
  const kindOf = (index) => `reader reader-${1 + (index % COLOURS)}`;
  part("readers").replaceChildren(...readings.map((reading, index) => {
    const item = cloneTemplate("reader-template");
    item.className = kindOf(index);
    const seconds = typeof reading.seconds === "number" ? `, ${Math.round(reading.seconds)} s` : "";
    item.querySelector("strong").textContent = reading.author;
    item.querySelector(".words").textContent = `${wordsOf(reading)}${seconds}${reading.comment ? ` – “${reading.comment}”` : ""}`;
    item.querySelector("button").setAttribute("aria-label", `Take over the reading of ${reading.author}`);
    item.querySelector("button").addEventListener("click", () => onTake(reading));
    return item;
  }));
  return readings.map((reading, index) => ({
    reader: kindOf(index), name: reading.author, boxes: marksOf(reading, result.detections),
  }));
}
