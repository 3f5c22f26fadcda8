"""`python -m pipeline` is the command `instructmill`, on the head of a cluster too, whatever its Python has."""

import sys
from importlib.util import find_spec

# The dependencies of pyproject.toml, as they are imported. No module of ours is before all are there.
NEEDED = "fsspec httpx markdown_it numba numpy pyarrow pydantic rensa rich selectolax".split()

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 -- nothing has installed it there
        version = ".".join(map(str, sys.version_info[:3]))
        print(
            f"instructmill: this node's Python ({sys.executable}) is {version}: 3.11 or newer is needed",
            file=sys.stderr,
        )
        sys.exit(2)
    if lacking := ", ".join(name for name in NEEDED if find_spec(name) is None):
        mend = "install instructmill there, or in the image (deploy/Dockerfile)"
        print(f"instructmill: this node's Python ({sys.executable}) lacks {lacking}: {mend}", file=sys.stderr)
        sys.exit(2)
    from pipeline.cli import main

    sys.exit(main())
