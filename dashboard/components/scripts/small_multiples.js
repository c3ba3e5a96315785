// Beside a grid of patches: the maps of one token in every layer and head, small, and the places that are like its own.
// It reads what patches.js holds, which stands behind it.
const multiples = (() => {
  const layersTitle = make("h3", "", say("Layers, mean of all heads")), layers = make("div", "viz-multiples");
  const headsTitle = make("h3"), heads = make("div", "viz-multiples");
  const like = make("figure", "viz-similar-positions"), picture = make("canvas"), words = make("figcaption");
  picture.setAttribute("role", "img");
  like.append(picture, words);

  // On one scale, so that they can be compared; a map that is on its way leaves its place free.
  function many(node, maps, names, chosen, choose) {
    const limits = limitsOf(joined(maps.filter(Boolean)), now.value.signed);
    while (node.children.length > maps.length) node.lastChild.remove();
    maps.forEach((map, i) => {
      let button = node.children[i];
      if (!button) {
        button = make("button", "viz-tile");
        button.type = "button";
        button.append(make("canvas"), make("span", "viz-name"));
        node.append(button);
      }
      const small = button.firstChild;
      small.width = now.maps.columns;
      small.height = now.maps.rows;
      if (map) draw(small, null, map, limits, 1);
      button.lastChild.textContent = names[i];
      button.setAttribute("aria-pressed", i === chosen);
      button.onclick = () => choose(i);
    });
  }

  function places(token) {
    like.hidden = !now.places;
    if (like.hidden) return;
    const patch = placeOf(token), name = nameOf(token);
    picture.hidden = !patch;
    if (patch) draw(picture, null, now.places.at(token - prefix()), [-1, 1], 1, true, now.value.placesPalette);
    words.replaceChildren(make("strong", "", say("Similar positions")), document.createTextNode(patch
      ? say("Red: patches with a similar position embedding; blue: patches with an opposite one. The embeddings were learned; the network is not given which patches are adjacent.")
      : say("The {name} has no position on the photo.", { name })));
    picture.setAttribute("aria-label", say("Similarity between the position embedding of {name} and that of each patch", { name }));
  }

  return {
    nodes: [layersTitle, layers, headsTitle, heads, like],
    resize: () => ([picture.width, picture.height] = [now.maps.columns, now.maps.rows]),
    draw() {
      const { layer, head } = now, token = focus(), count = headCount();
      const all = (length, one) => Array.from({ length }, (_, i) => one(i));
      many(layers, all(depth(), (l) => mapOf(l, -1, token)), all(depth(), (l) => String(l + 1)), layer, (i) => turnTo(i));
      headsTitle.textContent = say("Heads of layer {layer}", { layer: layer + 1 });
      const names = [say("mean"), ...all(count, (h) => String(h + 1))];
      many(heads, all(count + 1, (h) => mapOf(layer, h - 1, token)), names, head + 1, (i) => go({ head: i - 1 }));
      places(token);
    },
  };
})();
