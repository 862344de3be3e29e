// A reader's feedback on one result as two state machines: what was said, and whether the server has it. No DOM in here.

// What was said. `verdicts` maps box numbers to "right" or "wrong"; `missed` has boxes x0, y0, x1, y1 in pixels.
// "No fracture" excludes right boxes and missed fractures; `setAside` holds those until it is taken back.
export function feedbackOf(saved) {
  return {
    verdicts: new Map((saved?.boxes ?? []).map(({ number, verdict }) => [number, verdict])),
    missed: saved?.missed ?? [],
    noFracture: saved?.no_fracture ?? false,
    setAside: null,
  };
}

// Each returns new feedback and leaves its argument as it is.

// The same verdict again takes it back.
export function judge(feedback, number, verdict) {
  const verdicts = new Map(feedback.verdicts);
  if (verdicts.get(number) === verdict) {
    verdicts.delete(number);
    return { ...feedback, verdicts };
  }
  verdicts.set(number, verdict);
  return verdict === "right" ? withFracture({ ...feedback, verdicts }) : { ...feedback, verdicts };
}

export function addMissed(feedback, box) {
  return withFracture({ ...feedback, missed: [...feedback.missed, box] });
}

export function removeMissed(feedback, index) {
  return { ...feedback, missed: feedback.missed.filter((_, other) => other !== index) };
}

export function sayNoFracture(feedback) {
  const { verdicts, missed } = feedback;
  const wrong = new Map([...verdicts].filter(([, verdict]) => verdict === "wrong"));
  return { verdicts: wrong, missed: [], noFracture: true, setAside: { verdicts, missed } };
}

// Verdicts given since then win over those that were set aside.
export function takeBackNoFracture(feedback) {
  const { verdicts, missed } = feedback.setAside ?? feedback;
  return { verdicts: new Map([...verdicts, ...feedback.verdicts]), missed, noFracture: false, setAside: null };
}

const withFracture = (feedback) => ({ ...feedback, noFracture: false, setAside: null });

export function requestBody({ verdicts, missed, noFracture }, comment) {
  const boxes = [...verdicts].sort(([a], [b]) => a - b).map(([number, verdict]) => ({ number, verdict }));
  return { boxes, missed, no_fracture: noFracture, comment };
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
