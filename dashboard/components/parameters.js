// The knobs of a method as menus; which there are, and what they take, comes from vizlib's registry.
function written(value) {
  if (!value.placed) return;
  const turned = value.knobs.filter((knob) => knob.chosen);
  place("w", value.method);
  place("k", turned.map((knob) => `${knob.name}:${knob.choices[knob.chosen].name}`).join(","));
}

show((value) => {
  written(value);
  root.hidden = !(value.knobs || []).length;
  root.replaceChildren(...(value.knobs || []).map((knob) => {
    const field = make("label", "viz-parameter"), menu = make("select");
    field.title = knob.help;
    knob.choices.forEach((choice, i) => {
      const option = make("option", "", choice.said);
      option.value = i;
      option.selected = i === knob.chosen;
      menu.append(option);
    });
    menu.addEventListener("change", () => {
      const chosen = Number(menu.value);
      props.value = { ...value, knobs: value.knobs.map((one) => (one.name === knob.name ? { ...one, chosen } : one)) };
      written(props.value); // what comes back from the server is the same, so it would not be told
      choose({ knobs: props.value });
    });
    field.append(make("span", "", knob.name), menu);
    return field;
  }));
});
