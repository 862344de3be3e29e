// The next state of a machine whose `transitions` are {state: {event: next state}}; an event that a state does not list
// is a mistake in the page.
export function nextState(transitions, state, event) {
  const next = transitions[state]?.[event];
  if (next === undefined) throw new Error(`no transition from "${state}" on "${event}"`);
  return next;
}
