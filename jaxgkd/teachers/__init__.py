"""What a teacher is asked, what it says, and what it leaves behind.

`rings` samples a node's neighbours, `prompts` puts node and neighbours into words, `extract` runs a language model
over the prompts, and `store` keeps its states on disk under the `manifest` that says what they are; `hops` does all of
this in one call. Students read stores and nothing else.

`heads` turn features into class probabilities that never saw the label of the node they describe, `zero_shot` does
without labels, `tune` fits an encoder's upper layers (`text_classifier`) over cached lower ones (`token_states`), and
`instruct` teaches a causal model to answer with the class.
"""

from jaxgkd.teachers.extract import extract
from jaxgkd.teachers.manifest import Manifest, item_ids_hash
from jaxgkd.teachers.prompts import INSTRUCTIONS, HopPrompts, encoder_prompts, instruction_prompts, prompt_hash
from jaxgkd.teachers.rings import Rings, distance_rings
from jaxgkd.teachers.store import Store, StoreWriter, default_root, store_path

__all__ = [
    "INSTRUCTIONS",
    "HopPrompts",
    "Manifest",
    "Rings",
    "Store",
    "StoreWriter",
    "default_root",
    "distance_rings",
    "encoder_prompts",
    "extract",
    "instruction_prompts",
    "item_ids_hash",
    "prompt_hash",
    "store_path",
]
