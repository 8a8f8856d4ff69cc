"""What a student is trained on: pure functions of arrays that return one value per example.

* ``logits``: the teacher's class scores;
* ``features``: the teacher's hidden states;
* ``contrastive``: which teacher vector belongs to which item;
* ``relational``: how items lie to each other;
* ``molecular``: the states of molecules and of their atoms;
* ``link_scores`` and ``links``: edges against those that are not there, which needs no teacher;
* ``weighting``: learned weights between several losses.

All but links and weights take the student first and the teacher second, treat the teacher as constant unless
``stop_teacher_gradient=False``, and skip padding through ``where``. Averages are the caller's: divide by the sum of
the mask, never by the padded size.
"""

from jaxgkd.losses.contrastive import info_nce
from jaxgkd.losses.features import hidden_cosine, hidden_mse, linear_cka
from jaxgkd.losses.link_scores import link_scores
from jaxgkd.losses.links import link_losses
from jaxgkd.losses.logits import decoupled_kl, soft_target_kl
from jaxgkd.losses.molecular import atom_alignment, molecule_alignment
from jaxgkd.losses.relational import local_structure, relational_angle, relational_distance, similarity_preserving
from jaxgkd.losses.weighting import layer_adaptive, uncertainty_weighted

__all__ = [
    "atom_alignment",
    "decoupled_kl",
    "hidden_cosine",
    "hidden_mse",
    "info_nce",
    "layer_adaptive",
    "linear_cka",
    "link_losses",
    "link_scores",
    "local_structure",
    "molecule_alignment",
    "relational_angle",
    "relational_distance",
    "similarity_preserving",
    "soft_target_kl",
    "uncertainty_weighted",
]
