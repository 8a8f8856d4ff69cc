import pytest

from jaxgkd.data.brain_atlases import named_atlas, network_of, read_atlas, unnamed_atlas
from jaxgkd.errors import ConfigError, DataError


def write(tmp_path, text):
    path = tmp_path / "regions.csv"
    path.write_text(text)
    return path


def test_aal():
    cerebrum, whole = named_atlas("aal90"), named_atlas("aal116")
    assert (len(cerebrum), len(whole)) == (90, 116)
    assert whole.regions[:90] == cerebrum.regions
    assert len(set(whole.regions)) == 116
    # Places that every list of AAL agrees on, counted from 1.
    known = {1: "Precentral_L", 38: "Hippocampus_R", 43: "Calcarine_L", 67: "Precuneus_L", 78: "Thalamus_R"}
    known |= {90: "Temporal_Inf_R", 91: "Cerebelum_Crus1_L", 109: "Vermis_1_2", 116: "Vermis_10"}
    assert {i: whole.regions[i - 1] for i in known} == known
    assert whole.networks[36] == "limbic"
    assert whole.networks[-1] == "vermis"
    with pytest.raises(ConfigError, match="no atlas 'aal'; use aal90 or aal116"):
        named_atlas("aal")


def test_names_say_networks(tmp_path):
    path = write(tmp_path, "index,name\n0,7Networks_LH_Vis_1\n1,17Networks_RH_DefaultA_IPL_2\n2,Insula_L\n3,other\n")
    atlas = read_atlas(path)
    assert atlas.networks == ("Vis", "DefaultA", "insula", "")
    assert network_of("simulated_LH_Cont_2") == "Cont"
    assert unnamed_atlas(2).regions == ("region 1", "region 2")


def test_a_column_of_networks(tmp_path):
    assert read_atlas(write(tmp_path, "Region,network\na,one\nb,\n")).networks == ("one", "")


def test_cc200(tmp_path):
    text = "ROI number,volume,Automated Anatomical Labeling\n"
    text += '1,200,["Cuneus_L": 0.30]["None": 0.40]["Lingual_L": 0.10]\n2,100,["None": 1.00]\n'
    atlas = read_atlas(write(tmp_path, text))
    assert atlas.regions == ("Cuneus_L 1", "ROI 2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("index,volume\n0,3\n", "no column of region names"),
        ("name\n", "no regions"),
        ("name\na\nb\na\n", "row 4.*'a' is also in row 2"),
        ("name,x\na,1\n ,2\n", "row 3.*no name"),
    ],
)
def test_bad_tables(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_atlas(write(tmp_path, text))
