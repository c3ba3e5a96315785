// What is known of something: a few numbers large, the rest in groups of rows.
const text = (tag, name, words) => make(tag, name, words.replaceAll(" %", "\u00a0%")); // no line begins with a %

// A command whose lines break between its words only, and not at the hyphens of its options.
function command(line) {
  const code = make("code");
  line.split(" ").forEach((word, i) => code.append(i ? " " : "", make("span", "", word)));
  return code;
}

function rowsOf(group) {
  const rows = make("dl");
  for (const { name, lines, code, own } of group.rows) {
    const said = make("dd");
    if (own) said.lang = "en"; // a file speaks its own language
    said.append(...lines.map((line) => code ? command(line) : text("p", "", line)));
    rows.append(make("dt", "", name), said);
  }
  return rows;
}

show((value) => {
  root.replaceChildren();
  if (value.empty) return root.append(make("p", "viz-empty", value.empty));
  if (!value.groups) return;
  const head = make("header"), figures = make("ul", "viz-figures"), groups = make("div", "viz-groups");
  head.append(make("h2", "", value.name), text("p", "", value.lead));
  figures.append(...value.figures.map(({ value, label }) => {
    const item = make("li");
    item.append(text("strong", "", value), text("span", "", label));
    return item;
  }));
  groups.append(...value.groups.map((group) => {
    const section = make("section");
    if (group.heading) section.append(make("h3", "", group.heading));
    section.append(rowsOf(group));
    return section;
  }));
  if (value.name) root.append(head);
  if (value.figures.length) root.append(figures);
  root.append(groups);
});
