// @ts-check

// A menu for each parameter of a method; which there are, and their choices, comes from vizlib's table of methods.

/**
 * @typedef {object} ParameterMenu
 * @property {string} name
 * @property {string} help
 * @property {{ name: string, text: string }[]} choices
 * @property {number} chosen
 */
/** @typedef {{ method: string, parameters?: ParameterMenu[], inUrl: boolean }} ParametersValue */

/** @param {ParametersValue} value */
function updateUrl({ method, parameters = [], inUrl }) {
  if (!inUrl) return;
  const changed = parameters.filter((parameter) => parameter.chosen);
  setUrlState("w", method);
  setUrlState("k", changed.map(({ name, choices, chosen }) => `${name}:${choices[chosen].name}`).join(","));
}

/**
 * @param {ParameterMenu} parameter
 * @param {ParametersValue} value
 */
function createMenu({ name, help, choices, chosen }, value) {
  const label = createElement("label", "viz-parameter");
  const menu = createElement("select");
  label.title = help;
  for (const [i, choice] of choices.entries()) {
    const option = createElement("option", "", choice.text);
    option.value = String(i);
    option.selected = i === chosen;
    menu.append(option);
  }
  menu.addEventListener("change", () => {
    const parameters = (value.parameters || []).map((parameter) =>
      parameter.name === name ? { ...parameter, chosen: Number(menu.value) } : parameter,
    );
    props.value = { ...value, parameters };
    updateUrl(props.value); // the server sends back the same value, which is no change
    emitChoice({ parameters: props.value });
  });
  label.append(createElement("span", "", name), menu);
  return label;
}

/** @param {ParametersValue} value */
function draw(value) {
  const { parameters = [] } = value;
  updateUrl(value);
  root.hidden = !parameters.length;
  root.replaceChildren(...parameters.map((parameter) => createMenu(parameter, value)));
}

onValueChange(draw);
