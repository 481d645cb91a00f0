"""Megabytes that an installation takes, with all that it requires: python benchmarks/installed_size.py"""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from environment import parse, parser, write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

WANTED = ("gpunet", "gpunet[jit]", "torch", "jax", "scikit-learn", "thinc")
OWN = ("gpunet", "gpunet_backends")  # measured as folders: an editable installation lists no files


def closure(requirement: Requirement, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """The distribution and all that it requires here, by name."""
    dist = found[canonicalize_name(requirement.name)] = distribution(requirement.name)
    for needed in map(Requirement, dist.requires or ()):
        extras = requirement.extras or {""}
        wanted = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and canonicalize_name(needed.name) not in found:
            closure(needed, found)
    return found


def megabytes(dist: Distribution) -> float:
    if dist.name == "gpunet":
        folders = [Path(place) for name in OWN for place in find_spec(name).submodule_search_locations]
        files = [file for folder in folders for file in folder.rglob("*")]
    else:
        files = [Path(str(dist.locate_file(file))) for file in dist.files or ()]
    return sum(f.stat().st_size for f in files if f.is_file() and "__pycache__" not in f.parts) / 1e6


def main() -> None:
    options = parse(parser("Installed size, without bytecode."))
    rows = []
    for name in WANTED:
        try:
            parts = {key: megabytes(dist) for key, dist in sorted(closure(Requirement(name), {}).items())}
        except PackageNotFoundError as error:
            print(f"{name}: {error}")
            continue
        rows.append({"name": name, "megabytes": sum(parts.values()), "parts": parts})
        largest = sorted(parts.items(), key=lambda item: -item[1])[:4]
        print(f"{name:<14}{rows[-1]['megabytes']:7.0f} MB: ", ", ".join(f"{key} {mb:.0f}" for key, mb in largest))
    write(options, rows)


if __name__ == "__main__":
    main()
