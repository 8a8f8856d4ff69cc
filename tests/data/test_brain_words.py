import pytest

from jaxgkd.data.brain_atlases import named_atlas
from jaxgkd.data.brain_words import network_words, region_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("7Networks_LH_Vis_3", "left visual 3"),
        ("17Networks_RH_ContB_PFClv_1", "right control B ventrolateral prefrontal 1"),
        ("simulated_RH_SalVentAttn_2", "right salience 2"),
        ("Frontal_Inf_Tri_R", "right frontal inferior triangular"),
        ("region 12", "region 12"),
        ("V1", "V1"),
    ],
)
def test_regions(name, words):
    assert region_words(name) == words


def test_every_region_keeps_its_own_words():
    regions = named_atlas("aal116").regions
    assert len({region_words(region) for region in regions}) == len(regions)


def test_networks():
    assert network_words("SomMot") == "somatomotor"
    assert network_words("my_network") == "my network"
