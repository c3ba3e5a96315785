// A photo on a grid that is pointed at or walked over with the keyboard: a stage beside a column of more.
function gridOf(role, label) {
  const main = make("div", "viz-main"), side = make("div", "viz-side"), stage = make("div", "viz-stage viz-grid");
  const says = make("output", "viz-description");
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-roledescription", role);
  if (label) stage.setAttribute("aria-label", label);
  says.setAttribute("aria-live", "polite");
  root.append(main, side);
  root.hidden = true;
  return { main, side, stage, says };
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const LAYERS = { "[": -1, "]": 1 };
const within = (value, end) => Math.min(Math.max(value, 0), end - 1);

// The cell [row, column] of a grid that a pointer is over; `box` is where on the photo, in shares, the grid lies.
function cellUnder(event, canvas, [top, left, bottom, right], { rows, columns }) {
  const shown = canvas.getBoundingClientRect();
  const row = Math.floor((((event.clientY - shown.top) / shown.height - top) / (bottom - top)) * rows);
  const column = Math.floor((((event.clientX - shown.left) / shown.width - left) / (right - left)) * columns);
  return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
}

function joined(maps) {
  const all = new Float32Array(maps.length * maps[0].length);
  maps.forEach((map, i) => all.set(map, i * map.length));
  return all;
}

// Lay a frame over a part of the photo: top, left, bottom, right as shares of its sides.
function lay(node, [top, left, bottom, right]) {
  Object.assign(node.style, {
    top: 100 * top + "%", left: 100 * left + "%", height: 100 * (bottom - top) + "%", width: 100 * (right - left) + "%",
  });
}
