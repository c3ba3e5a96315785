// @ts-check

// The estimated cost of a method of many forward passes, its progress, and the button that starts or stops it. A stop
// shows here at once; the server stops after the batch that it is computing.

/** @typedef {{ state?: string, text?: string, share?: number, stopped?: string, begin?: boolean }} ProgressValue */

const bar = createElement("progress");
const status = createElement("p", "viz-progress-text");
const button = createButton("viz-primary-button");
bar.max = 1;
bar.setAttribute("aria-label", translate("Progress"));
status.setAttribute("role", "status");
root.append(status, bar, button);
let state = "";
let wasStopped = false; // a step that was under way at the stop still arrives

button.addEventListener("click", () => {
  if (state !== "running") return starter.start();
  trigger("stop");
  wasStopped = true;
  draw({ state: "stopped", text: props.value.stopped });
});

const starter = createStarter(() => {
  wasStopped = false;
  status.textContent = translate("Starting …");
  button.hidden = true; // nothing to stop before the first batch is computed
  trigger("submit");
});

/** @param {ProgressValue} value */
function draw(value) {
  starter.cancel();
  state = value.state || "";
  root.hidden = !state;
  root.dataset.state = state;
  bar.hidden = state !== "running";
  if (state === "running") bar.value = value.share ?? 0;
  if (status.textContent !== (value.text || "")) status.textContent = value.text || "";
  if (state === "running") button.textContent = translate("Stop");
  else button.textContent = state === "stopped" ? translate("Start again") : translate("Start");
  button.hidden = false;
  // The method may have been chosen from the small maps far below: scroll to the button.
  const { top } = root.getBoundingClientRect();
  const chosen = document.activeElement?.closest(".viz-thumbnails");
  if (state === "waiting" && top < 0 && chosen) root.scrollIntoView({ block: "center" });
  if (value.begin) starter.start();
}

onValueChange((value) => {
  if (!wasStopped || value.state !== "running") draw(value);
});
