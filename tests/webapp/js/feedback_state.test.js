import assert from "node:assert/strict";
import { test } from "node:test";

import {
  SAVING, addMissed, feedbackOf, isInProgress, isSaved, judge, moveBox, removeMissed, requestBody, sayNoFracture, sayUnreadable,
  setMissedType, setReason, setType, takeBack,
} from "../../../webapp/static/feedback_state.js";
import { nextState } from "../../../webapp/static/state_machine.js";

const BOX = [10, 20, 60, 90];
const run = (...events) => events.reduce((state, event) => nextState(SAVING, state, event), "saved");
const body = (feedback) => requestBody(feedback, "");

test("nothing was said of a new result", () => {
  assert.deepEqual(body(feedbackOf(null)), { boxes: [], missed: [], no_fracture: false, comment: "" });
});

test("saved feedback is read and sent back unchanged, boxes by number", () => {
  const boxes = [{ number: 2, verdict: "wrong" }, { number: 1, verdict: "right" }];
  const feedback = feedbackOf({ boxes, missed: [BOX], no_fracture: false });
  assert.deepEqual(requestBody(feedback, "step"), {
    boxes: [{ number: 1, verdict: "right" }, { number: 2, verdict: "wrong" }], missed: [BOX], no_fracture: false, comment: "step",
  });
});

test("a verdict is given, replaced, and removed by the same one again", () => {
  const right = judge(feedbackOf(null), 1, "right");
  assert.equal(right.verdicts.get(1), "right");
  const wrong = judge(right, 1, "wrong");
  assert.equal(wrong.verdicts.get(1), "wrong");
  assert.equal(judge(wrong, 1, "wrong").verdicts.size, 0);
  assert.equal(right.verdicts.get(1), "right", "an argument was changed");
});

test("missed fractures are added and removed by their index", () => {
  const two = addMissed(addMissed(feedbackOf(null), BOX), [1, 2, 3, 4]);
  assert.deepEqual(two.missed, [BOX, [1, 2, 3, 4]]);
  assert.deepEqual(removeMissed(two, 0).missed, [[1, 2, 3, 4]]);
});

test("no fracture removes right boxes and missed fractures, keeps wrong boxes, and gives all back", () => {
  const before = addMissed(judge(judge(feedbackOf(null), 1, "right"), 2, "wrong"), BOX);
  const none = sayNoFracture(before);
  assert.deepEqual(body(none), { boxes: [{ number: 2, verdict: "wrong" }], missed: [], no_fracture: true, comment: "" });
  assert.deepEqual(body(takeBack(none)), body(before));
});

test("a verdict given under no fracture wins over the one from before", () => {
  const none = sayNoFracture(judge(feedbackOf(null), 1, "right"));
  assert.equal(takeBack(judge(none, 1, "wrong")).verdicts.get(1), "wrong");
});

test("no fracture that came from the server is taken back without anything to restore", () => {
  const saved = feedbackOf({ boxes: [{ number: 1, verdict: "wrong" }], missed: [], no_fracture: true });
  const open = takeBack(saved);
  assert.equal(open.noFracture, false);
  assert.equal(open.verdicts.get(1), "wrong");
});

for (const [name, act] of [["a right box", (f) => judge(f, 1, "right")], ["a missed fracture", (f) => addMissed(f, BOX)]]) {
  test(`${name} ends no fracture, and what was set aside is not restored`, () => {
    const feedback = act(sayNoFracture(addMissed(feedbackOf(null), [1, 2, 3, 4])));
    assert.equal(feedback.noFracture, false);
    assert.equal(feedback.setAside, null);
    assert.ok(!feedback.missed.some(([x0]) => x0 === 1));
  });
}

test("a wrong box or a removed verdict leaves no fracture as it is", () => {
  const none = sayNoFracture(feedbackOf(null));
  assert.equal(judge(none, 1, "wrong").noFracture, true);
  assert.equal(judge(judge(none, 1, "wrong"), 1, "wrong").noFracture, true);
});

test("types are read, sent where one is stated, and gone with their verdict or their fracture", () => {
  const saved = { boxes: [{ number: 1, verdict: "right", type: "spiral" }], missed: [BOX, BOX], missed_types: [null, "oblique"] };
  const feedback = feedbackOf(saved);
  const { boxes, missed_types: ofMissed } = body(feedback);
  assert.deepEqual([boxes, ofMissed], [saved.boxes, saved.missed_types]);
  assert.deepEqual(body(setType(feedback, 1, null)).boxes, [{ number: 1, verdict: "right" }]);
  assert.deepEqual(body(judge(feedback, 1, "wrong")).boxes, [{ number: 1, verdict: "wrong" }]);
  assert.deepEqual(judge(judge(feedback, 1, "right"), 1, "right").types, new Map());
  assert.deepEqual(body(removeMissed(feedback, 0)).missed_types, ["oblique"]);
  assert.equal("missed_types" in body(setMissedType(feedback, 1, null)), false);
  assert.deepEqual(addMissed(feedback, BOX).missedTypes, [null, "oblique", null]);
  assert.deepEqual(feedback, feedbackOf(saved), "an argument was changed");
});

test("no fracture sets types aside, and gives those back whose box is still right", () => {
  const before = setMissedType(addMissed(setType(judge(feedbackOf(null), 1, "right"), 1, "spiral"), BOX), 0, "oblique");
  const none = sayNoFracture(before);
  assert.deepEqual(body(none), { boxes: [], missed: [], no_fracture: true, comment: "" });
  assert.deepEqual(body(takeBack(none)), body(before));
  assert.deepEqual(body(takeBack(judge(none, 1, "wrong"))).boxes, [{ number: 1, verdict: "wrong" }]);
});

test("a moved box is right elsewhere, goes back by right, and is forgotten by wrong", () => {
  const moved = moveBox(setType(judge(feedbackOf(null), 1, "right"), 1, "spiral"), 1, BOX);
  assert.deepEqual(body(moved).boxes, [{ number: 1, verdict: "right", type: "spiral", moved_to: BOX }]);
  assert.deepEqual(feedbackOf(body(moved)).moved, new Map([[1, BOX]]));
  assert.deepEqual(body(judge(moved, 1, "right")).boxes, [{ number: 1, verdict: "right", type: "spiral" }]);
  assert.deepEqual(body(judge(moved, 1, "wrong")).boxes, [{ number: 1, verdict: "wrong" }]);
  assert.equal(moveBox(sayNoFracture(moved), 2, BOX).noFracture, false);
  assert.deepEqual(body(takeBack(sayNoFracture(moved))), body(moved));
});

test("not readable excludes everything else, has a reason, and gives all back", () => {
  const before = addMissed(moveBox(judge(feedbackOf(null), 2, "wrong"), 1, BOX), BOX);
  const none = setReason(sayUnreadable(before), "motion");
  assert.deepEqual(body(none), { boxes: [], missed: [], no_fracture: false, unreadable: true, reason: "motion", comment: "" });
  assert.deepEqual(body(takeBack(none)), body(before));
  assert.deepEqual(body(takeBack(sayUnreadable(sayNoFracture(before)))), body(before));
  assert.deepEqual(body(takeBack(sayNoFracture(sayUnreadable(before)))), body(before));
  assert.deepEqual(feedbackOf(body(none)).reason, "motion");
});

for (const [name, act] of [
  ["right", (f) => judge(f, 1, "right")], ["wrong", (f) => judge(f, 1, "wrong")], ["a missed fracture", (f) => addMissed(f, BOX)],
  ["a moved box", (f) => moveBox(f, 1, BOX)], ["no fracture", sayNoFracture],
]) {
  test(`${name} ends not readable`, () => {
    const said = body(act(sayUnreadable(feedbackOf(null))));
    assert.equal("unreadable" in said || "reason" in said, false);
  });
}

test("the time is sent where it was measured", () => {
  assert.equal(requestBody(feedbackOf(null), "", 3.5).seconds, 3.5);
  assert.equal("seconds" in body(feedbackOf(null)), false);
});

const PATHS = [
  [[], "saved"],
  [["change"], "changed"],
  [["change", "change", "send"], "saving"],
  [["change", "send", "succeed"], "saved"],
  [["change", "send", "change"], "changed while saving"],
  [["change", "send", "change", "succeed"], "changed"],
  [["change", "send", "change", "fail"], "failed"],
  [["change", "send", "change", "send", "succeed"], "saved"], // the page is left while a request is in progress
  [["change", "send", "send", "succeed"], "saved"],
  [["change", "send", "fail"], "failed"],
  [["change", "send", "fail", "send"], "saving"],
  [["change", "send", "fail", "change"], "changed"],
  [["change", "send", "delete", "succeed"], "deleted"],
  [["change", "delete", "change"], "deleted"],
];
for (const [events, state] of PATHS) {
  test(`saving: ${events.join(", ") || "at first"} -> ${state}`, () => assert.equal(run(...events), state));
}

test("saving: a response without a request, and a request without a change, are mistakes", () => {
  for (const events of [["succeed"], ["fail"], ["send"], ["change", "succeed"]]) {
    assert.throws(() => run(...events), /no transition from/);
  }
});

test("saving: every transition leads to a state that exists", () => {
  for (const transitions of Object.values(SAVING)) for (const next of Object.values(transitions)) assert.ok(SAVING[next], next);
});

test("saving: only saved and deleted may be left without a warning", () => {
  assert.deepEqual(Object.keys(SAVING).filter(isSaved), ["saved", "deleted"]);
  assert.deepEqual(Object.keys(SAVING).filter(isInProgress), ["saving", "changed while saving"]);
});
