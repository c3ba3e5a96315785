// @ts-check

/**
 * Show items as the children of a node. An item whose key was shown before keeps its element: a click that has begun on
 * it, or the focus, would be lost with the element.
 * @template Item
 * @template {HTMLElement} Node
 * @param {HTMLElement} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => Node} create
 * @param {(node: Node, item: Item) => void} update
 */
function updateKeyedList(parent, items, keyOf, create, update) {
  const children = /** @type {(Node & { listKey?: string })[]} */ (Array.from(parent.children));
  const previous = new Map(children.map((node) => [node.listKey, node]));
  const nodes = items.map((item) => {
    const key = keyOf(item);
    const node = previous.get(key) ?? create(item);
    /** @type {{ listKey?: string }} */ (node).listKey = key;
    update(node, item);
    return node;
  });
  for (const node of previous.values()) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, i) => {
    if (node !== parent.children[i]) parent.insertBefore(node, parent.children[i] ?? null);
  });
}
