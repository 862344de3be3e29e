// One result: the picture with its boxes, the list, and the slider. Moving the slider never changes the finding.
const MOST_TIMES = 3;
const SVG = "http://www.w3.org/2000/svg";

export async function openResult(place) {
  const asked = new URLSearchParams(location.search).get("score");
  const answer = await fetch(`${place.dataset.result}?score=0`);
  if (!answer.ok) return; // the page without script stays
  const result = await answer.json();
  place.replaceChildren();
  place.classList.remove("viewer");
  show(place, result, asked === null ? result.operating_score : Number(asked));
}

export function show(place, result, threshold = result.operating_score) {
  const viewer = document.getElementById("viewer-template").content.cloneNode(true).firstElementChild;
  const part = (key) => viewer.querySelector(`[data-part="${key}"]`);
  const state = { result, part, threshold, chosen: null };
  fillWords(state, viewer);
  fillPicture(state);
  wireControls(state);
  place.append(viewer);
  draw(state);
}

function fillWords({ result, part }, viewer) {
  part("finding").classList.add(result.finding.level.replace(" ", "-"));
  viewer.querySelector(`[data-icon="${result.finding.level}"]`).hidden = false;
  part("title").textContent = result.finding.title;
  part("advice").textContent = result.finding.advice;
  part("json").href = result.links.self;
  part("page").href = result.links.page;
  part("reset").textContent = `Reset to ${number(result.operating_score)}`;
  part("reset").title = "The operating point";
  const seconds = (result.latency_ms / 1000).toFixed(1);
  part("facts").textContent = `${result.image.width} × ${result.image.height} px · ${result.model} · ${seconds} s`;
}

function fillPicture({ result, part }) {
  const { width, height } = result.image;
  const image = part("image");
  Object.assign(image, { src: result.links.image, width, height });
  image.addEventListener("error", () => { part("image-failure").hidden = false; });
  // As large as the screen allows, but small pictures not blown up beyond recognition.
  part("sheet").classList.add("fitted");
  part("sheet").style.width = `min(100%, calc(var(--tall) * ${width / height}), ${MOST_TIMES * width}px)`;
  part("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
}

function wireControls(state) {
  const { part, result } = state;
  const slider = part("slider");
  slider.id = `slider-${result.id}`;
  part("slider-label").htmlFor = slider.id;
  slider.value = state.threshold;
  slider.addEventListener("input", () => { state.threshold = Number(slider.value); draw(state); });
  part("reset").addEventListener("click", () => {
    state.threshold = result.operating_score;
    slider.value = state.threshold;
    draw(state);
  });
  part("toggle").addEventListener("change", () => part("sheet").classList.toggle("bare", !part("toggle").checked));
}

function draw(state) {
  const { result, part, threshold } = state;
  const shown = result.detections.filter((box) => box.score >= threshold);
  const hidden = result.detections.length - shown.length;
  part("threshold").textContent = number(threshold);
  part("slider").setAttribute("aria-valuetext", `score ${number(threshold)}, ${plural(shown.length, "box", "boxes")} shown`);
  part("overlay").href = `${result.links.overlay}?score=${threshold}`;
  part("image").alt = `Radiograph, ${plural(shown.length, "place", "places")} marked`;
  part("count").textContent = shown.length || hidden
    ? `${plural(shown.length, "box", "boxes")} shown, ${hidden} below the slider.`
    : `No box, not even a weak one (score ${number(result.floor_score)} or more).`;
  part("boxes").replaceChildren(...shown.map(rectangle));
  part("tags").replaceChildren(...shown.map((box) => tag(box, result.image)));
  part("list").replaceChildren(...shown.map((box) => entry(box, state)));
  choose(state, state.chosen);
}

function rectangle(box) {
  const [x0, y0, x1, y1] = box.box_xyxy_px;
  const group = document.createElementNS(SVG, "g");
  group.dataset.number = box.number;
  group.setAttribute("class", box.level);
  for (const line of ["halo", "line"]) {
    const rect = document.createElementNS(SVG, "rect");
    const sides = { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: line };
    for (const [name, value] of Object.entries(sides)) rect.setAttribute(name, value);
    group.append(rect);
  }
  return group;
}

function tag(box, { width, height }) {
  const [x0, y0] = box.box_xyxy_px;
  const label = document.createElement("span");
  label.className = box.level;
  label.dataset.number = box.number;
  label.textContent = box.number;
  label.style.left = `${(100 * x0) / width}%`;
  label.style.top = `${(100 * y0) / height}%`;
  if (y0 < 0.06 * height) label.classList.add("inside");
  return label;
}

function entry(box, state) {
  const item = document.getElementById("box-template").content.cloneNode(true).firstElementChild;
  const button = item.querySelector("button");
  button.dataset.number = box.number;
  button.classList.add(box.level);
  const words = { number: box.number, label: box.label, score: number(box.score), level: box.level };
  for (const [name, text] of Object.entries(words)) item.querySelector(`.${name}`).textContent = text;
  button.setAttribute("aria-label", `Box ${box.number}: ${box.label}, score ${number(box.score)}, ${box.level}`);
  button.addEventListener("click", () => choose(state, state.chosen === box.number ? null : box.number));
  return item;
}

function choose(state, chosen) {
  state.chosen = chosen;
  for (const key of ["boxes", "tags", "list"]) {
    for (const element of state.part(key).querySelectorAll("[data-number]")) {
      const isChosen = Number(element.dataset.number) === chosen;
      element.classList.toggle("chosen", isChosen);
      if (element.matches("button")) element.setAttribute("aria-pressed", String(isChosen));
    }
  }
  state.part("sheet").classList.toggle("one-chosen", state.part("boxes").querySelector(".chosen") !== null);
}

const number = (score) => score.toFixed(2);
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
