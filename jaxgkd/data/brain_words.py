"""Readable names of brain regions and networks: ``7Networks_LH_Vis_3`` is "left visual 3"."""

import re

#: Networks by the short names of atlases; a trailing A, B or C of Schaefer's 17 networks is kept as a letter.
NETWORK_WORDS = {
    "Vis": "visual",
    "VisCent": "central visual",
    "VisPeri": "peripheral visual",
    "SomMot": "somatomotor",
    "DorsAttn": "dorsal attention",
    "SalVentAttn": "salience",
    "Limbic": "limbic",
    "Cont": "control",
    "Default": "default mode",
    "TempPar": "temporoparietal",
}
_PARTS = {
    "Ant": "anterior",
    "Aud": "auditory",
    "Cent": "central",
    "Cing": "cingulate",
    "Cinga": "anterior cingulate",
    "Cingm": "middle cingulate",
    "Cingp": "posterior cingulate",
    "ExStr": "extrastriate",
    "FEF": "frontal eye field",
    "FPole": "frontal pole",
    "FrMed": "medial frontal",
    "FrOper": "frontal operculum",
    "FrOperIns": "frontal operculum and insula",
    "Inf": "inferior",
    "Ins": "insula",
    "IPL": "inferior parietal",
    "IPS": "intraparietal",
    "Med": "medial",
    "Mid": "middle",
    "OFC": "orbitofrontal",
    "Oper": "opercular",
    "Orb": "orbital",
    "Par": "parietal",
    "ParaHippocampal": "parahippocampal",
    "ParMed": "medial parietal",
    "ParOcc": "parieto-occipital",
    "ParOper": "parietal operculum",
    "pCun": "precuneus",
    "pCunPCC": "precuneus",
    "PCC": "posterior cingulate",
    "PFC": "prefrontal",
    "PFCd": "dorsal prefrontal",
    "PFCdPFCm": "dorsal and medial prefrontal",
    "PFCl": "lateral prefrontal",
    "PFCld": "dorsolateral prefrontal",
    "PFClv": "ventrolateral prefrontal",
    "PFCm": "medial prefrontal",
    "PFCmp": "posterior medial prefrontal",
    "PFCv": "ventral prefrontal",
    "PHC": "parahippocampal",
    "Post": "posterior",
    "PostC": "postcentral",
    "PrC": "precentral",
    "PrCd": "dorsal precentral",
    "PrCv": "ventral precentral",
    "Rsp": "retrosplenial",
    "S2": "secondary somatosensory",
    "SPL": "superior parietal",
    "Striate": "striate",
    "StriCal": "calcarine",
    "Sup": "superior",
    "Supp": "supplementary",
    "SupraMarginal": "supramarginal",
    "Temp": "temporal",
    "TempOcc": "temporo-occipital",
    "TempOccPar": "temporo-occipito-parietal",
    "TempPole": "temporal pole",
    "Tri": "triangular",
}
_SIDES = {"LH": "left", "RH": "right", "L": "left", "R": "right"}
_SCHAEFER = re.compile(r"(?:\d*Networks|simulated)_(LH|RH)_(\w+)")


def network_words(network: str) -> str:
    """A network in words; its own name in lower case where it is not known.

    >>> network_words("DorsAttn"), network_words("ContB"), network_words("frontal")
    ('dorsal attention', 'control B', 'frontal')
    """
    if network in NETWORK_WORDS:
        return NETWORK_WORDS[network]
    if network[:-1] in NETWORK_WORDS and network[-1] in "ABC":
        return f"{NETWORK_WORDS[network[:-1]]} {network[-1]}"
    return network.replace("_", " ").lower()


def region_words(region: str) -> str:
    """A region in words: side, network, part and number, as far as its name tells.

    >>> region_words("7Networks_LH_Vis_3"), region_words("7Networks_RH_Default_PFC_12")
    ('left visual 3', 'right default mode prefrontal 12')
    >>> region_words("Frontal_Sup_Orb_L"), region_words("Cuneus_R 7")
    ('left frontal superior orbital', 'right cuneus 7')
    """
    match = _SCHAEFER.fullmatch(region)
    if match:
        network, *parts = match[2].split("_")
        return " ".join([_SIDES[match[1]], network_words(network), *map(_part_words, parts)])
    name, _, number = region.partition(" ")
    *parts, last = name.split("_")
    if last in _SIDES and parts:
        return " ".join([_SIDES[last], *map(_part_words, parts), *([number] if number else [])])
    return " ".join(_part_words(part) for part in region.split("_"))


def _part_words(part: str) -> str:
    return _PARTS.get(part, part.lower() if part[:1].isupper() and part[1:].islower() else part)
