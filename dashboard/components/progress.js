// What a long method costs, how far it is, and the button that begins or stops it. A stop is told here at once; the
// server hears of it and ends the work after the batch it is in.
const bar = make("progress"), said = make("p", "viz-progress-text"), button = make("button", "viz-primary-button");
button.type = "button";
bar.max = 1;
bar.setAttribute("aria-label", say("Progress"));
said.setAttribute("role", "status");
root.append(said, bar, button);
let state = "", begins = false; // as soon as no choice waits for its answer
let ended = false; // by a stop: a step that was on its way then comes all the same

button.addEventListener("click", () => {
  if (state !== "running") return begin();
  trigger("stop");
  const { stopped } = props.value;
  ended = true;
  draw({ state: "stopped", said: stopped });
});

function begin() {
  const desk = document.querySelector("#event-queue .viz-event_queue");
  if (desk.dataset.busy !== undefined) { // something else may have been chosen already: then this is drawn anew before
    begins = true;
    return desk.addEventListener("viz-idle", () => begins && begin(), { once: true });
  }
  begins = ended = false;
  said.textContent = say("Starting …");
  button.hidden = true; // there is nothing to stop before the first batch is through
  trigger("submit");
}

function draw(value) {
  begins = false;
  state = value.state || "";
  root.hidden = !state;
  root.dataset.state = state;
  bar.hidden = state !== "running";
  if (state === "running") bar.value = value.share;
  if (said.textContent !== (value.said || "")) said.textContent = value.said || "";
  button.textContent = say({ running: "Stop", stopped: "Start again" }[state] || "Start");
  button.hidden = false;
  const { top } = root.getBoundingClientRect(); // chosen from the small maps far below: the button comes into sight
  if (state === "waiting" && top < 0 && document.activeElement?.closest(".viz-thumbnails")) root.scrollIntoView({ block: "center" });
  if (value.begin) begin();
}

show((value) => ended && value.state === "running" || draw(value));
