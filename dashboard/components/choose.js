// Tell a desk of the page what a person chose.
function choose(choice, desk = "desk") {
  document.querySelector(`#${desk} .viz-desk`)?.dispatchEvent(new CustomEvent("viz-choose", { detail: choice }));
}
