"""States of a teacher at every hop, read from their store for the nodes of a batch."""

import numpy as np

from jaxgkd.errors import StoreError
from jaxgkd.teachers.store import Store


class HopStates:
    """What `jaxgkd.teachers.hops.hop_features` leaves in a store, memory-mapped: nothing is held but what is asked for.

    Attributes:
      n_node: number of nodes; n_hops: hops there are of each; width: of a state.
    """

    def __init__(self, store: Store, n_node: int):
        """Say where the nodes' states are.

        Args:
          store: one state for every item, hop after hop, in each the nodes in their order.
          n_node: number of nodes.

        Raises:
          StoreError: it does not hold as many items at every hop.
        """
        if not len(store) or len(store) % n_node:
            what = f"holds {len(store)} items, no multiple of the {n_node} nodes"
            raise StoreError(what, file=store.folder, mend="use the store of this graph")
        self._store = store
        self.n_node, self.n_hops = n_node, len(store) // n_node
        self.width = store.manifest.width

    def of(self, nodes: np.ndarray) -> np.ndarray:
        """Nodes [k], with -1 for padding, → [k, n_hops, d] float32 of length 1; padding is zero."""
        items = np.maximum(nodes, 0)[:, None] + self.n_node * np.arange(self.n_hops)
        states = self._store.read(items.ravel())[:, 0].reshape(*items.shape, -1)
        states = states / np.maximum(np.linalg.norm(states, axis=-1, keepdims=True), 1e-12)
        return states * (nodes >= 0)[:, None, None]
