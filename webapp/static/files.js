// Where files come from: the two pickers, a drop with whole folders, the clipboard.
// `add` gets the files and how many of a folder were left out, null for files that came without one.
export function listenForFiles(form, add, tell) {
  const take = (found, isFolder = false) => {
    const wanted = isFolder ? found.filter(({ file }) => isWanted(file, form)) : found;
    add(wanted, isFolder ? found.length - wanted.length : null);
  };
  for (const input of form.querySelectorAll("input[type=file]")) {
    const takeChosen = () => {
      take([...input.files].map(named), input.hasAttribute("webkitdirectory"));
      input.value = "";
    };
    input.addEventListener("change", takeChosen);
    if (input.files.length) takeChosen(); // chosen before this script had come
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  listenForDrops(form, take, tell);
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) take([...clipboardData.files].map(named));
  });
}

const named = (file) => ({ file, name: file.webkitRelativePath || file.name || "Pasted image" });

function listenForDrops(form, take, tell) {
  let depth = 0;
  const mark = () => form.classList.toggle("over", depth > 0);
  addEventListener("dragenter", () => { depth += 1; mark(); });
  addEventListener("dragleave", () => { depth -= 1; mark(); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    mark();
    // The list is empty as soon as this function waits for something.
    const dropped = [...event.dataTransfer.items].filter(({ kind }) => kind === "file")
      .map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
    const folders = dropped.map(({ entry }) => entry).filter((entry) => entry?.isDirectory);
    const loose = dropped.filter(({ entry, file }) => file && !entry?.isDirectory).map(({ file }) => named(file));
    if (loose.length) take(loose);
    for (const folder of folders) {
      await filesIn(folder).then((found) => take(found, true), () => tell(`The folder ${folder.name} could not be read.`));
    }
  });
}

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return [{ file, name: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  // It gives at most a hundred at a time.
  for (let some = null; some === null || some.length;) {
    some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    for (const inner of some) found.push(...await filesIn(inner));
  }
  return found.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}

// A folder holds other things too; what a person chose one by one is never left out.
function isWanted(file, form) {
  const kinds = form.querySelector("#files").accept.split(",").map((kind) => kind.trim());
  const name = file.name.toLowerCase();
  return kinds.some((kind) => (kind.startsWith(".") ? name.endsWith(kind) : file.type === kind));
}
