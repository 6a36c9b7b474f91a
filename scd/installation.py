"""Says in one line when the installed torch and torchvision do not fit, instead of a traceback from deep inside timm.

Call it before anything that imports torchvision: timm, the backbones, the studies.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version

from scd.errors import UsageError


def check_torchvision() -> None:
    """Import torchvision, as timm and the data room will.

    A torch of one build beside a torchvision of another (typically a "+cpu" wheel of torch beside the registry's
    torchvision) fails there with "operator torchvision::nms does not exist" or an undefined symbol.

    Raises:
        UsageError: torch or torchvision is missing, or the two were not built for each other; the text names both
            versions and what to reinstall.
    """
    for package in ("torch", "torchvision"):
        try:
            version(package)
        except PackageNotFoundError:
            raise UsageError(f"{package} is not installed; install the suite: python -m pip install -e .") from None
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, ImportError, OSError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"torch {version('torch')} does not fit torchvision {version('torchvision')} ({reason}); reinstall both "
            "from one index: python -m pip install --force-reinstall 'torch>=2.14' 'torchvision>=0.29'"
        ) from error
