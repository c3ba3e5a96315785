// @ts-check

/**
 * What the small maps show: the maps of one token in every layer and in every head of the current layer.
 * @typedef {object} MultiplesView
 * @property {Float32Array[]} layerMaps
 * @property {(Float32Array | undefined)[]} headMaps the mean of all heads first; undefined while it is being fetched
 * @property {number} layer
 * @property {number} head -1 for the mean
 * @property {number} rows
 * @property {number} columns
 * @property {boolean} signed
 * @property {string} palette
 * @property {string} tokenName
 * @property {Float32Array | null} similarity of the token's position embedding to that of each patch; null for a token
 *   without a position on the photo
 * @property {boolean} hasSimilarity
 * @property {string} similarityPalette
 */

/**
 * Create the small maps beside a grid of patches.
 * @param {(layer: number) => void} onLayer
 * @param {(head: number) => void} onHead
 */
function createSmallMultiples(onLayer, onHead) {
  const layersTitle = createElement("h3", "", translate("Layers, mean of all heads"));
  const layers = createElement("div", "viz-multiples");
  const headsTitle = createElement("h3");
  const heads = createElement("div", "viz-multiples");
  const similarFigure = createElement("figure", "viz-similar-positions");
  const similarCanvas = createElement("canvas");
  const similarCaption = createElement("figcaption");
  similarCanvas.setAttribute("role", "img");
  similarFigure.append(similarCanvas, similarCaption);

  /**
   * Draw maps on one scale, so that they can be compared; a map that is being fetched leaves its canvas empty.
   * @param {HTMLElement} list
   * @param {(Float32Array | undefined)[]} maps
   * @param {string[]} names
   * @param {number} current
   * @param {MultiplesView} view
   * @param {(index: number) => void} onClick
   */
  function drawTiles(list, maps, names, current, view, onClick) {
    const { rows, columns, signed, palette } = view;
    const limits = computeLimits(concatenate(maps.filter((map) => map !== undefined)), signed);
    while (list.children.length > maps.length) list.lastChild?.remove();
    maps.forEach((map, i) => {
      let button = /** @type {HTMLButtonElement | undefined} */ (list.children[i]);
      if (!button) {
        button = createButton("viz-tile");
        button.append(createElement("canvas"), createElement("span", "viz-name"));
        list.append(button);
      }
      const [canvas, name] = /** @type {[HTMLCanvasElement, HTMLElement]} */ (/** @type {unknown} */ (button.children));
      canvas.width = columns;
      canvas.height = rows;
      if (map) drawMap(canvas, null, { values: map, rows, columns, limits, signed, palette }, 1);
      name.textContent = names[i];
      button.setAttribute("aria-pressed", String(i === current));
      button.onclick = () => onClick(i);
    });
  }

  /** @param {MultiplesView} view */
  function drawSimilarity({ hasSimilarity, similarity, similarityPalette, tokenName, rows, columns }) {
    similarFigure.hidden = !hasSimilarity;
    if (!hasSimilarity) return;
    similarCanvas.hidden = !similarity;
    if (similarity) {
      const limits = /** @type {Limits} */ ([-1, 1]);
      const map = { values: similarity, rows, columns, limits, signed: true, palette: similarityPalette };
      drawMap(similarCanvas, null, map, 1);
    }
    const text = similarity
      ? translate(
          "Red: patches with a similar position embedding; blue: patches with an opposite one. The embeddings were learned; the network is not given which patches are adjacent.",
        )
      : translate("The {name} has no position on the photo.", { name: tokenName });
    similarCaption.replaceChildren(createElement("strong", "", translate("Similar positions")), text);
    const label = "Similarity between the position embedding of {name} and that of each patch";
    similarCanvas.setAttribute("aria-label", translate(label, { name: tokenName }));
  }

  return {
    nodes: [layersTitle, layers, headsTitle, heads, similarFigure],

    /**
     * @param {number} width
     * @param {number} height
     */
    resize(width, height) {
      similarCanvas.width = width;
      similarCanvas.height = height;
    },

    /** @param {MultiplesView} view */
    draw(view) {
      const { layer, head, layerMaps, headMaps } = view;
      drawTiles(
        layers,
        layerMaps,
        Array.from(layerMaps, (_, i) => String(i + 1)),
        layer,
        view,
        onLayer,
      );
      headsTitle.textContent = translate("Heads of layer {layer}", { layer: layer + 1 });
      const headNames = Array.from(headMaps, (_, i) => (i ? String(i) : translate("mean")));
      drawTiles(heads, headMaps, headNames, head + 1, view, (i) => onHead(i - 1));
      drawSimilarity(view);
    },
  };
}
