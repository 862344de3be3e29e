// The worklist of this tab, for after a reload: names, identifiers and what was read, on this machine and until the tab is
// closed or somebody logs out. Another account's list is deleted.
const PREFIX = "worklist of ";

const storageKey = () => PREFIX + (document.querySelector("meta[name=account]")?.content ?? "");

// What cannot be kept, in a browser that forbids it, is only missing after a reload.
function trying(act) {
  try { return act(); } catch { return null; }
}

// Returns whether it could be kept.
export function remember(list) {
  return trying(() => { sessionStorage.setItem(storageKey(), JSON.stringify(list)); return true; }) ?? false;
}

export function recall() {
  return trying(() => {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(PREFIX) && key !== storageKey()) sessionStorage.removeItem(key);
    }
    return JSON.parse(sessionStorage.getItem(storageKey()));
  });
}

// Adds stored results, each `{name, self}`, to those that the upload page lists when it is opened next.
export function addToList(results) {
  const list = recall() ?? { jobs: [], chosen: -1, onlyUnread: false };
  const known = new Set(list.jobs.map(({ self }) => self));
  const added = results.filter(({ self }) => !known.has(self)).map((result) => ({ ...result, isRead: false }));
  return remember({ ...list, jobs: [...list.jobs, ...added] });
}

// A result that was deleted on a page of its own.
export function forget(self) {
  const list = recall();
  if (!list) return;
  const chosen = list.jobs[list.chosen];
  const jobs = list.jobs.filter((job) => job.self !== self);
  remember({ ...list, jobs, chosen: jobs.indexOf(chosen) });
}

export function forgetAtLogout() {
  document.querySelector("form.out")?.addEventListener("submit", () => trying(() => sessionStorage.removeItem(storageKey())));
}
