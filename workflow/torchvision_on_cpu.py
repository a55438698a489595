"""Let a torchvision that was compiled for CUDA be imported beside a torch that was not.

The package index has no torchvision for CPUs alone. Its compiled operators do not load beside a CPU torch, and the
import then stops at "operator torchvision::nms does not exist", which takes every model of transformers with it. Two
operator schemas are all that the import asks for; image transforms, the only thing wanted here, are plain torch.

`workflow/build_engines.py` copies this file into the environment's site-packages, whose start imports it.
"""

import sys
from importlib.abc import MetaPathFinder


class DefineMissingOperators(MetaPathFinder):
    """Defines the schemas when torchvision, its compiled operators tried in vain, comes to register their gradients."""

    library = None

    def find_spec(self, fullname, path=None, target=None):
        """Never find a module: look on, and leave the finding to the finders behind it."""
        if fullname == "torchvision._autograd_registrations" and not sys.modules["torchvision.extension"]._has_ops():
            self.define()

    def define(self):
        """Declare `nms` and `qnms`; torch forgets them when the library object goes, so it is kept."""
        from torch.library import Library

        if self.library is None:
            self.library = Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                self.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DefineMissingOperators())
