// A reader's feedback on one result as two state machines: what was said, and whether the server has it. No DOM in here.

// What was said. `verdicts` maps box numbers to "right" or "wrong"; `missed` has boxes x0, y0, x1, y1 in pixels. `types` maps
// the numbers of right boxes to types of fracture, and `missedTypes` has one, or null, for each missed fracture.
// "No fracture" excludes right boxes and missed fractures; `setAside` holds those until it is taken back.
export function feedbackOf(saved) {
  return {
    verdicts: new Map((saved?.boxes ?? []).map(({ number, verdict }) => [number, verdict])),
    missed: saved?.missed ?? [],
    types: new Map((saved?.boxes ?? []).filter(({ type }) => type).map(({ number, type }) => [number, type])),
    missedTypes: (saved?.missed ?? []).map((_, index) => saved.missed_types?.[index] ?? null),
    noFracture: saved?.no_fracture ?? false,
    setAside: null,
  };
}

// Each returns new feedback and leaves its argument as it is.

// The same verdict again takes it back.
export function judge(feedback, number, verdict) {
  const verdicts = new Map(feedback.verdicts);
  const types = new Map(feedback.types);
  types.delete(number);
  if (verdicts.get(number) === verdict) {
    verdicts.delete(number);
    return { ...feedback, verdicts, types };
  }
  verdicts.set(number, verdict);
  return verdict === "right" ? withFracture({ ...feedback, verdicts, types }) : { ...feedback, verdicts, types };
}

// `type` is null for unknown.
export function setType(feedback, number, type) {
  const types = new Map(feedback.types);
  if (type) types.set(number, type); else types.delete(number);
  return { ...feedback, types };
}

export function setMissedType(feedback, index, type) {
  return { ...feedback, missedTypes: feedback.missedTypes.map((own, other) => (other === index ? type : own)) };
}

export function addMissed(feedback, box) {
  return withFracture({ ...feedback, missed: [...feedback.missed, box], missedTypes: [...feedback.missedTypes, null] });
}

export function removeMissed(feedback, index) {
  const others = (items) => items.filter((_, other) => other !== index);
  return { ...feedback, missed: others(feedback.missed), missedTypes: others(feedback.missedTypes) };
}

export function sayNoFracture({ verdicts, missed, types, missedTypes }) {
  const wrong = new Map([...verdicts].filter(([, verdict]) => verdict === "wrong"));
  const setAside = { verdicts, missed, types, missedTypes };
  return { verdicts: wrong, missed: [], types: new Map(), missedTypes: [], noFracture: true, setAside };
}

// Verdicts given since then win over those that were set aside.
export function takeBackNoFracture(feedback) {
  const before = feedback.setAside ?? feedback;
  const verdicts = new Map([...before.verdicts, ...feedback.verdicts]);
  const types = new Map([...before.types].filter(([number]) => verdicts.get(number) === "right"));
  return { ...before, verdicts, types, noFracture: false, setAside: null };
}

const withFracture = (feedback) => ({ ...feedback, noFracture: false, setAside: null });

// Types are sent only where one is stated.
export function requestBody({ verdicts, missed, types, missedTypes, noFracture }, comment) {
  const typed = (number) => (types.has(number) ? { type: types.get(number) } : {});
  const boxes = [...verdicts].sort(([a], [b]) => a - b).map(([number, verdict]) => ({ number, verdict, ...typed(number) }));
  const ofMissed = missedTypes.some(Boolean) ? { missed_types: missedTypes } : {};
  return { boxes, missed, ...ofMissed, no_fracture: noFracture, comment };
}

// Whether the server has it. "changed while saving" needs another request after the one in progress; "deleted" is final.
export const SAVING = {
  saved: { change: "changed", delete: "deleted" },
  changed: { change: "changed", send: "saving", delete: "deleted" },
  saving: { change: "changed while saving", send: "saving", succeed: "saved", fail: "failed", delete: "deleted" },
  "changed while saving": {
    change: "changed while saving", send: "saving", succeed: "changed", fail: "failed", delete: "deleted",
  },
  failed: { change: "changed", send: "saving", delete: "deleted" },
  deleted: { change: "deleted", send: "deleted", succeed: "deleted", fail: "deleted", delete: "deleted" },
};

export const isSaved = (state) => state === "saved" || state === "deleted";
export const isInProgress = (state) => state === "saving" || state === "changed while saving";
