"""The `gpunet` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line. A GpunetError ends it with one line and exit status 2."""
    import sys

    from gpunet.cli.commands import app
    from gpunet.errors import GpunetError

    try:
        app()
    except GpunetError as error:
        print(f"gpunet: {error}", file=sys.stderr)
        sys.exit(2)
