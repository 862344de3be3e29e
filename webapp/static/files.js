// Where files come from: the two file inputs, dropped files and folders, the clipboard.
// `add` gets the files and how many of a folder were skipped, null for files that are not from a folder; `showMessage`
// gets a text about a folder.
export function listenForFiles(form, add, showMessage) {
  const addAll = async (files, isFolder = false) => {
    if (!isFolder) return add(files, null);
    const kept = await Promise.all(files.map(({ file }) => isAccepted(file, form)));
    const accepted = files.filter((_, index) => kept[index]);
    return add(accepted, files.length - accepted.length);
  };
  for (const input of form.querySelectorAll("input[type=file]")) {
    const addChosen = () => {
      addAll([...input.files].map(named), input.hasAttribute("webkitdirectory"));
      input.value = "";
    };
    input.addEventListener("change", addChosen);
    if (input.files.length) addChosen(); // chosen before this script was loaded
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  listenForDrops(form, addAll, showMessage);
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) addAll([...clipboardData.files].map(named));
  });
}

const named = (file) => ({ file, name: file.webkitRelativePath || file.name || "Pasted image" });

function listenForDrops(form, addAll, showMessage) {
  let depth = 0;
  const highlight = () => form.classList.toggle("over", depth > 0);
  addEventListener("dragenter", () => { depth += 1; highlight(); });
  addEventListener("dragleave", () => { depth -= 1; highlight(); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    highlight();
    // The list is emptied at the first await.
    const dropped = [...event.dataTransfer.items].filter(({ kind }) => kind === "file")
      .map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
    const folders = dropped.map(({ entry }) => entry).filter((entry) => entry?.isDirectory);
    const single = dropped.filter(({ entry, file }) => file && !entry?.isDirectory).map(({ file }) => named(file));
    if (single.length) addAll(single);
    for (const folder of folders) {
      const showFailure = () => showMessage(`The folder ${folder.name} could not be read.`);
      await filesIn(folder).then((files) => addAll(files, true), showFailure);
    }
  });
}

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return [{ file, name: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const files = [];
  // readEntries returns at most a hundred at a time.
  for (let batch = null; batch === null || batch.length;) {
    batch = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    for (const inner of batch) files.push(...await filesIn(inner));
  }
  return files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}

// Folders contain other files too; files chosen one by one are never skipped. DICOM files often have no suffix.
async function isAccepted(file, form) {
  const kinds = form.querySelector("#files").accept.split(",").map((kind) => kind.trim());
  const name = file.name.toLowerCase();
  if (kinds.some((kind) => (kind.startsWith(".") ? name.endsWith(kind) : file.type === kind))) return true;
  const mark = file.slice(128, 132).text();
  return (await mark.catch(() => "")) === "DICM";
}
