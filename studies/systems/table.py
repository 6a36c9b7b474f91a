"""All systems of the study ``related``. Another one is one more entry; its arms, contrasts and rows follow from it."""

from studies.systems.asymmetric import ASYMMETRIC
from studies.systems.regions import REGIONS
from studies.systems.views import VIEWS

SYSTEMS = (*REGIONS, *VIEWS, *ASYMMETRIC)
