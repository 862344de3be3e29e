// A reader's feedback on one result as two state machines: what was said, and whether the server has it. No DOM in here.

// What was said. `verdicts` maps box numbers to "right" or "wrong"; `missed` has boxes x0, y0, x1, y1 in pixels. `types` maps
// the numbers of right boxes to types of fracture, `moved` to where the reader put them, and `missedTypes` has a type, or null,
// for each missed fracture. "No fracture" excludes right boxes and missed fractures, "not readable" everything else; `setAside`
// holds what one of them excludes until it is taken back.
export function feedbackOf(saved) {
  return {
    verdicts: new Map((saved?.boxes ?? []).map(({ number, verdict }) => [number, verdict])),
    missed: saved?.missed ?? [],
    types: new Map((saved?.boxes ?? []).filter(({ type }) => type).map(({ number, type }) => [number, type])),
    missedTypes: (saved?.missed ?? []).map((_, index) => saved.missed_types?.[index] ?? null),
    moved: new Map((saved?.boxes ?? []).filter((box) => box.moved_to).map((box) => [box.number, box.moved_to])),
    noFracture: saved?.no_fracture ?? false,
    unreadable: saved?.unreadable ?? false,
    reason: saved?.reason ?? "",
    setAside: null,
  };
}

// Each returns new feedback and leaves its argument as it is.

// The same verdict again takes it back; "right" of a moved box puts it back where it was.
export function judge(feedback, number, verdict) {
  const [verdicts, types, moved] = [feedback.verdicts, feedback.types, feedback.moved].map((map) => new Map(map));
  const wasMoved = moved.delete(number);
  if (wasMoved && verdict === "right") return { ...feedback, moved };
  types.delete(number);
  if (verdicts.get(number) === verdict) {
    verdicts.delete(number);
    return { ...feedback, verdicts, types, moved };
  }
  verdicts.set(number, verdict);
  const judged = { ...feedback, verdicts, types, moved, unreadable: false, reason: "" };
  return verdict === "right" || feedback.unreadable ? withFracture(judged) : judged;
}

// A moved box is right, elsewhere.
export function moveBox(feedback, number, box) {
  const verdicts = new Map(feedback.verdicts).set(number, "right");
  return withFracture({ ...feedback, verdicts, moved: new Map(feedback.moved).set(number, box) });
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

const NOTHING = { verdicts: new Map(), missed: [], types: new Map(), missedTypes: [], moved: new Map() };
const marks = ({ verdicts, missed, types, missedTypes, moved }) => ({ verdicts, missed, types, missedTypes, moved });

export function sayNoFracture(feedback) {
  const verdicts = new Map([...feedback.verdicts].filter(([, verdict]) => verdict === "wrong"));
  const setAside = feedback.unreadable ? feedback.setAside : marks(feedback);
  return { ...NOTHING, verdicts, noFracture: true, unreadable: false, reason: "", setAside };
}

export function sayUnreadable(feedback) {
  const setAside = feedback.noFracture ? feedback.setAside : marks(feedback);
  return { ...NOTHING, noFracture: false, unreadable: true, reason: feedback.reason, setAside };
}

export function setReason(feedback, reason) { return { ...feedback, reason }; }

// Takes back "no fracture" or "not readable". Verdicts given since then win over those that were set aside.
export function takeBack(feedback) {
  const before = feedback.setAside ?? marks(feedback);
  const verdicts = new Map([...before.verdicts, ...feedback.verdicts]);
  const [types, moved] = [before.types, before.moved].map(
    (map) => new Map([...map].filter(([number]) => verdicts.get(number) === "right")),
  );
  return { ...before, verdicts, types, moved, noFracture: false, unreadable: false, reason: "", setAside: null };
}

const withFracture = (feedback) => ({ ...feedback, noFracture: false, unreadable: false, reason: "", setAside: null });

// What was not stated, types say, is not sent.
export function requestBody(feedback, comment, seconds) {
  const { verdicts, missed, types, missedTypes, moved, noFracture, unreadable, reason } = feedback;
  const stated = (name, map, number) => (map.has(number) ? { [name]: map.get(number) } : {});
  const boxes = [...verdicts].sort(([a], [b]) => a - b).map(([number, verdict]) => ({
    number, verdict, ...stated("type", types, number), ...stated("moved_to", moved, number),
  }));
  const ofMissed = missedTypes.some(Boolean) ? { missed_types: missedTypes } : {};
  const ofAll = { ...(unreadable ? { unreadable, reason } : {}), ...(seconds === undefined ? {} : { seconds }) };
  return { boxes, missed, ...ofMissed, no_fracture: noFracture, ...ofAll, comment };
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
