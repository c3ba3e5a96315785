// @ts-check

// Weights v with a slider each, and the products of v and matrices, computed while a slider moves.

/**
 * @typedef {object} VectorProduct
 * @property {string[]} weights name of each weight
 * @property {{ name: string, rows: number[][] }[]} matrices one row for each weight
 * @property {string} label
 */

const MAX_WEIGHT = 2;
const WEIGHT_STEP = 0.5;

/** @param {number} value */
const formatEntry = (value) => String(Number(value.toPrecision(6))).replace("-", "−");

/**
 * Create a matrix in brackets; a vector is a matrix of one row.
 * @param {number[][]} rows
 */
function createMatrix(rows) {
  const matrix = createElement("span", "viz-matrix");
  matrix.style.gridTemplateColumns = `repeat(${rows[0].length}, auto)`;
  matrix.append(...rows.flat().map((value) => createElement("span", "", formatEntry(value))));
  return matrix;
}

/**
 * Return the rows of a matrix weighted and summed.
 * @param {number[]} weights
 * @param {number[][]} rows
 */
function multiply(weights, rows) {
  return rows[0].map((_, column) => rows.reduce((sum, row, i) => sum + weights[i] * row[column], 0));
}

/**
 * Draw the sliders and the products into a node.
 * @param {HTMLElement} node
 * @param {VectorProduct} product
 * @param {(weights: number[]) => void} onChange called with the first weights, and after each move
 */
function drawVectorProduct(node, product, onChange) {
  const weights = product.weights.map(() => 1);
  const sliders = createElement("div", "viz-weights");
  const equations = createElement("div", "viz-equations");
  equations.setAttribute("role", "status");
  const update = () => {
    equations.replaceChildren(
      ...product.matrices.map(({ name, rows }) => {
        const equation = createElement("p", "viz-equation");
        const result = createMatrix([multiply(weights, rows)]);
        result.classList.add("viz-product");
        equation.append(
          createElement("span", "viz-equation-name", name),
          createMatrix([weights]),
          "·",
          createMatrix(rows),
        );
        equation.append("=", result);
        return equation;
      }),
    );
    onChange(weights);
  };
  product.weights.forEach((name, i) => {
    const label = createElement("label", "viz-weight");
    const input = createElement("input");
    const amount = createElement("output", "", formatEntry(weights[i]));
    Object.assign(input, { type: "range", min: -MAX_WEIGHT, max: MAX_WEIGHT, step: WEIGHT_STEP });
    input.value = String(weights[i]);
    input.addEventListener("input", () => {
      weights[i] = Number(input.value);
      amount.textContent = formatEntry(weights[i]);
      update();
    });
    label.append(createElement("span", "", name), input, amount);
    sliders.append(label);
  });
  node.setAttribute("aria-label", product.label);
  node.replaceChildren(sliders, equations);
  update();
}
