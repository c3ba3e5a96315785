// @ts-check

// Buttons that each make a file on the server, which the browser then downloads.

/** @typedef {{ key: string, name: string, hint: string }} FileButton */

const row = createElement("div", "viz-row");
const status = createElement("p", "viz-file-status");
row.setAttribute("role", "group");
row.setAttribute("aria-label", translate("Files to download"));
status.setAttribute("role", "status");
root.append(row, status);

/** @param {FileButton} file */
function createFileButton({ key, name, hint }) {
  const button = createButton("viz-outline-button", name);
  button.title = hint;
  button.dataset.key = key;
  button.addEventListener("click", () => {
    status.textContent = translate("Creating the file …");
    trigger("select", { index: key, value: name });
  });
  return button;
}

/** @param {{ files?: FileButton[], status?: string }} value */
function draw(value) {
  const files = value.files || [];
  if (row.childElementCount !== files.length) row.replaceChildren(...files.map(createFileButton)); // else focus is lost
  status.textContent = value.status || "";
}

onValueChange(draw);
