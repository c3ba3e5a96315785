// @ts-check

// Copy the address of the page with the selection in it. A Space is shown in a frame; there the address of the Space is
// copied instead of the frame's.
const copyButton = createButton("viz-outline-button", translate("Copy link"));
const exportButton = createButton("viz-outline-button", translate("Export"));
const copyStatus = createElement("span", "viz-copy-status");
const note = createElement("p", "viz-link-note");
exportButton.title = translate("Save the map as a report, a figure or raw values, or copy the code that computes it.");
copyStatus.setAttribute("role", "status");
note.setAttribute("role", "status");
root.append(exportButton, copyButton, copyStatus);
(element.closest("#header") || root).append(note); // as wide as the page, below its title
let baseUrl = "";
let timer = 0;

copyButton.addEventListener("click", async () => {
  const query = new URLSearchParams(location.search);
  for (const key of [...query.keys()]) if (key.startsWith("__")) query.delete(key); // gradio's own
  await copyText((baseUrl || location.origin + location.pathname) + formatQuery(query));
  copyStatus.textContent = readUrlState("img") ? translate("Copied") : translate("Copied, without your photo");
  clearTimeout(timer);
  timer = setTimeout(() => {
    copyStatus.textContent = "";
  }, 4000);
});

exportButton.addEventListener("click", () => trigger("select", { index: "export" }));

onValueChange((value) => {
  baseUrl = value.base || "";
  copyButton.title = value.hint || "";
  setUrlStates(value.keys);
  if (note.textContent !== (value.note || "")) note.textContent = value.note || "";
});
