// Photos to begin with, as buttons.
show((value) => {
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", say("Example photos"));
  root.replaceChildren(...(value.photos || []).map((photo, i) => {
    const button = make("button"), image = make("img"), name = say(photo.name);
    button.type = "button";
    button.title = name;
    image.src = photo.picture;
    image.alt = name;
    button.append(image);
    button.addEventListener("click", () => trigger("select", { index: i, value: photo.name }));
    return button;
  }));
});
