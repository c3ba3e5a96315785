// One click makes a file, and the browser takes it down when it is there.
const row = make("div", "viz-row"), told = make("p", "viz-file-status");
row.setAttribute("role", "group");
row.setAttribute("aria-label", say("Files to download"));
told.setAttribute("role", "status");
root.append(row, told);

function buttonOf({ key, name, hint }) {
  const button = make("button", "viz-outline-button", name);
  button.type = "button";
  button.title = hint;
  button.dataset.key = key;
  button.addEventListener("click", () => {
    told.textContent = say("Creating the file …");
    trigger("select", { index: key, value: name });
  });
  return button;
}

show((value) => {
  const files = value.files || [];
  if (row.childElementCount !== files.length) row.replaceChildren(...files.map(buttonOf)); // else the focus would be lost
  told.textContent = value.said || "";
});
