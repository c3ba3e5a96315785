// A still picture with its caption, and what there is to know besides, folded away.
function more(rows) {
  const details = make("details", "viz-details"), list = make("dl");
  list.append(...rows.flatMap(({ name, said }) => [make("dt", "", name), make("dd", "", said)]));
  details.append(make("summary", "", say("Preprocessing")), list);
  return details;
}

show((value) => {
  if (!value.picture) return root.replaceChildren();
  const figure = make("figure"), image = make("img"), words = make("figcaption");
  image.src = value.picture;
  image.alt = value.alt;
  figure.dataset.fit = value.fit || "natural";
  words.append(make("span", "", value.caption));
  if (value.file) {
    const save = make("a", "viz-link", say("Save PNG"));
    save.href = value.picture;
    save.download = value.file;
    words.append(save);
  }
  const frame = make("div", "viz-image-frame");
  frame.append(image);
  if (value.grid?.length) {
    const lines = make("div", "viz-image-grid"), [rows, columns] = value.grid;
    lines.style.backgroundSize = `${100 / columns}% ${100 / rows}%`;
    frame.append(lines);
  }
  figure.append(frame, words);
  root.replaceChildren(figure, ...(value.rows?.length ? [more(value.rows)] : []));
});
