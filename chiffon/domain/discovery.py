"""Finding the work: every module of the package that holds it is imported once."""

from __future__ import annotations

import importlib
import pkgutil

from chiffon.domain.errors import ChiffonError


class WorkersNotFound(ChiffonError):
    """The package named by ``CHIFFON_WORKERS`` cannot be imported."""


def import_workers(names: str) -> None:
    """Import each package in ``names`` (joined by commas) with all its modules, so that `@work` registers them.

    Raises:
        WorkersNotFound: a package is not on the path. What a module of it raises is left as it is.
    """
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            package = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise
            raise WorkersNotFound(
                f"there is no package {name!r} here: start in the folder that holds it, or set CHIFFON_WORKERS"
            ) from None
        for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}."):
            importlib.import_module(module.name)
