// The texts beside the image that do not change: the finding, the links, the facts.
import { spacingText } from "./length.js";
import { className, probabilityText, scoreName, thresholdText } from "./text.js";
import { fillTypes } from "./types.js";

const LINKS = [["overlay", "overlay"], ["json", "self"], ["page", "page"], ["report", "report"], ["report-pdf", "report_pdf"]];

export function fillPanel(element, part, result) {
  fillSuitability(part("unsuitable"), result.suitability);
  fillFinding(element, part, result.finding);
  fillTypes(part, result);
  for (const [key, link] of LINKS) {
    part(key).hidden = !result.links[link];
    if (result.links[link]) part(key).href = result.links[link];
  }
  part("slider-text").textContent = `Minimum ${scoreName(result)}`;
  part("reset").textContent = `Reset to ${thresholdText(result.operating_score, result)}`;
  part("reset").title = "The operating point";
  const seconds = (result.latency_ms / 1000).toFixed(1);
  const { width, height, bits } = result.image;
  const depth = bits > 8 ? [`${bits} bits`] : [];
  const size = result.spacing_mm ? [`${spacingText(result.spacing_mm)}, ${result.spacing_note}`] : [];
  const version = result.model_version ? [`version ${result.model_version}`] : [];
  const facts = [`${width} × ${height} px`, ...depth, ...size, result.model, ...version, `${seconds} s`];
  part("facts").textContent = facts.join(" · ");
}

function fillSuitability(place, suitability) {
  place.hidden = !suitability?.notice;
  place.textContent = suitability?.notice ?? "";
  place.classList.toggle("refused", suitability?.ok === false);
}

function fillFinding(element, part, { level, title, advice, confidence }) {
  part("finding").classList.add(className(level));
  element.querySelector(`[data-icon="${level}"]`).hidden = false;
  part("title").textContent = title;
  part("advice").textContent = advice;
  part("chance").hidden = typeof confidence !== "number";
  if (!part("chance").hidden) part("chance").textContent = `Calibrated probability of a fracture: ${probabilityText(confidence)}`;
}
