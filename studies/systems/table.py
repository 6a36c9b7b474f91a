"""All systems of the study ``related``. Another one is one more entry; its arms, contrasts and rows follow from it."""

from studies.systems.regions import REGIONS
from studies.systems.views import VIEWS

SYSTEMS = (*REGIONS, *VIEWS)
NOT_YET = (
    "CAST", "MaskContrast", "Hierarchical Grouping", "ORL", "Odin", "CrOC", "COMUS", "DenseSiam", "Asym-Siam", "DiLo",
    "Reverse Attention",
)  # fmt: skip
