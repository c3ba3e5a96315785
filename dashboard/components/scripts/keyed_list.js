// Show items as a node's children. One that is shown again keeps its node, so that a click which has begun on it, or the
// focus, outlives the new value: the browser forgets both of a node that is taken away.
function keep(parent, items, keyOf, create, update) {
  const old = new Map(Array.from(parent.children, (node) => [node.kept, node]));
  const nodes = items.map((item) => {
    const key = keyOf(item), node = old.get(key) ?? create(item);
    node.kept = key;
    update(node, item);
    return node;
  });
  for (const node of old.values()) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, i) => node === parent.children[i] || parent.insertBefore(node, parent.children[i] ?? null));
}
