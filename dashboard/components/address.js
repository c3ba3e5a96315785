// Copy the address of the page as it stands; on a Space the one that people see, which is not this frame's.
const button = make("button", "viz-outline-button", say("Copy link")), done = make("span", "viz-copy-status"), said = make("p", "viz-link-note");
const away = make("button", "viz-outline-button", say("Export"));
button.type = away.type = "button";
away.title = say("Save the map as a report, a figure or raw values, or copy the code that computes it.");
done.setAttribute("role", "status");
said.setAttribute("role", "status");
root.append(away, button, done);
(element.closest("#header") || root).append(said); // across the page, under its title
let base = "", timer = 0;

button.addEventListener("click", async () => {
  const keys = new URLSearchParams(location.search);
  for (const key of [...keys.keys()].filter((key) => key.startsWith("__"))) keys.delete(key); // gradio's own
  await copy((base || location.origin + location.pathname) + questionOf(keys));
  done.textContent = say(placed("img") ? "Copied" : "Copied, without your photo");
  clearTimeout(timer);
  timer = setTimeout(() => (done.textContent = ""), 4000);
});

away.addEventListener("click", () => trigger("select", { index: "export" }));

show((value) => {
  base = value.base || "";
  button.title = value.hint || "";
  placeAll(value.keys);
  if (said.textContent !== (value.said || "")) said.textContent = value.said || "";
});
