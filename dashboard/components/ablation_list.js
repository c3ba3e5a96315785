// Switch a unit off and see the other answer; what is off can come back one by one, or all at once.
const tools = make("div", "viz-ablation-controls"), press = make("button", "viz-ablation-toggle"), chips = make("div", "viz-chips");
const says = make("p", "viz-effect"), sides = make("div", "viz-comparison");
press.type = "button";
says.setAttribute("role", "status");
chips.setAttribute("role", "group");
chips.setAttribute("aria-label", say("Units that are switched off; click one to switch it on again"));
tools.append(press, chips);
root.append(tools, says, sides);
root.hidden = true;
press.addEventListener("click", () => choose({ switch: "toggle" }, "inside-event-queue"));

function chip(text, index, name) {
  const node = make("button", "viz-chip", text);
  node.type = "button";
  node.title = name;
  node.setAttribute("aria-label", name);
  node.addEventListener("click", () => choose({ switch: index }, "inside-event-queue"));
  return node;
}

function side({ heading, rows }) {
  const node = make("section"), list = make("ol");
  for (const row of rows) {
    const item = make("li", "viz-bar-row"), fill = make("span", "viz-fill");
    fill.style.width = Math.max(row.probability * 100, 0.6) + "%";
    if (row.target) item.dataset.target = "";
    item.append(make("span", "viz-name", row.name), make("span", "viz-share", row.share), fill);
    list.append(item);
  }
  node.append(make("h3", "", heading), list);
  return node;
}

show((value) => {
  root.hidden = !value.label;
  if (root.hidden) return;
  const off = value.off || [], held = root.contains(document.activeElement);
  press.textContent = value.label;
  chips.replaceChildren(...off.map((name, i) => chip(name + " ×", String(i), say("Switch {name} on again", { name }))));
  if (off.length > 1) chips.append(chip(say("Switch all on"), "all", say("Switch all on again")));
  says.textContent = value.says || "";
  sides.replaceChildren(...value.sides.map(side));
  if (held && !root.contains(document.activeElement)) press.focus({ preventScroll: true });
});
