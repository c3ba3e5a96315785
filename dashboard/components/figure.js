// A still picture with its caption.
show((value) => {
  if (!value.picture) return root.replaceChildren();
  const figure = make("figure"), image = make("img"), words = make("figcaption");
  image.src = value.picture;
  image.alt = value.alt;
  figure.dataset.fit = value.fit || "natural";
  words.append(make("span", "", value.caption));
  if (value.file) {
    const save = make("a", "viz-link", "Save PNG");
    save.href = value.picture;
    save.download = value.file;
    words.append(save);
  }
  figure.append(image, words);
  root.replaceChildren(figure);
});
