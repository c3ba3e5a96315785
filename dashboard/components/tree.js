// A network as a tree: a part with parts of its own is a <details>, one without is a button. A click chooses it as the layer.
const list = make("div", "viz-tree-children"), head = make("div", "viz-tree-row viz-tree-header");
const unfolded = new Set(); // names of the parts a person opened; kept while the model stays
let model = null, drawn = "";

head.append(...[say("Layer"), say("Output"), say("Params"), "FLOPs"].map((word) => make("span", "", word)));
head.setAttribute("aria-hidden", "true");
root.append(head, list);

const parent = (name) => name.split(".").slice(0, -1).join(".");

// The nearest part above that is shown: a part in between may be left out.
function above(name, known) {
  for (let up = parent(name); up; up = parent(up)) if (known.has(up)) return up;
  return "";
}

function line(node, item, under) {
  node.classList.add("viz-tree-row");
  node.dataset.layer = item.name;
  node.title = item.told;
  const name = make("span", "viz-layer-name"), own = under ? item.name.slice(under.length + 1) : item.name;
  name.append(make("b", "", own), make("i", "", item.role));
  node.append(name, ...["shape", "parameters", "flops"].map((key) => make("span", "viz-count", item[key])));
  if (item.shape) node.addEventListener("click", () => choose({ layer: item.name }, "inside-event-queue"));
}

function draw(rows) {
  const known = new Set(rows.map((row) => row.name)), inside = { "": list };
  const parents = new Set(rows.map((row) => above(row.name, known)));
  list.replaceChildren();
  for (const item of rows) {
    const under = above(item.name, known);
    if (!parents.has(item.name)) {
      const leaf = make("button");
      leaf.type = "button";
      line(leaf, item, under);
      inside[under].append(leaf);
      continue;
    }
    const branch = make("details"), summary = make("summary"), within = make("div", "viz-tree-children");
    line(summary, item, under);
    branch.open = unfolded.has(item.name);
    branch.addEventListener("toggle", () => unfolded[branch.open ? "add" : "delete"](item.name));
    branch.append(summary, within);
    inside[under].append(branch);
    inside[item.name] = within;
  }
}

show((value) => {
  const rows = value.rows || [], told = JSON.stringify(rows);
  root.hidden = !rows.length;
  if (value.model !== model) unfolded.clear();
  model = value.model;
  if (told !== drawn) draw(rows); // else a click that has begun on a part would be lost
  drawn = told;
  for (const node of list.querySelectorAll("[aria-current]")) node.removeAttribute("aria-current");
  const chosen = value.chosen && list.querySelector(`[data-layer="${CSS.escape(value.chosen)}"]`), reach = list.clientHeight;
  chosen?.setAttribute("aria-current", "true");
  for (let branch = chosen?.closest(".viz-tree-children"); branch && branch !== list; branch = branch.parentNode.parentNode) branch.parentNode.open = true;
  if (!chosen || !reach) return;
  const at = chosen.getBoundingClientRect().top - list.getBoundingClientRect().top;
  if (at < 0 || at > reach - 30) list.scrollTop += at - reach / 2;
});
