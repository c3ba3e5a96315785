// Tell a desk of the page what a person chose.
function choose(choice, desk = "desk") {
  document.querySelector(`#${desk} .viz-event_queue`)?.dispatchEvent(new CustomEvent("viz-choose", { detail: choice }));
}
