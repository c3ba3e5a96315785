// @ts-check

// Example photos as buttons.

/** @param {{ photos?: { name: string, picture: string }[] }} value */
function draw({ photos = [] }) {
  const buttons = photos.map((photo, index) => {
    const button = createButton();
    const image = createElement("img");
    const name = translate(photo.name);
    button.title = name;
    image.src = photo.picture;
    image.alt = name;
    button.append(image);
    button.addEventListener("click", () => trigger("select", { index, value: photo.name }));
    return button;
  });
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", translate("Example photos"));
  root.replaceChildren(...buttons);
}

onValueChange(draw);
