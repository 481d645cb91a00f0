"""The `gpunet` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line. An error ends it with one line and exit status 2, Ctrl-C with 130."""
    import sys

    from gpunet.cli.commands import app
    from gpunet.errors import GpunetError

    try:
        status = app(standalone_mode=False)
    except GpunetError as error:
        print(f"gpunet: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, MemoryError, UnicodeError) as error:  # a full disk, a folder that went, too large a network
        print(f"gpunet: {type(error).__name__}: {error}. Check the disk, the memory and the files.", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if type(error).__name__ == "Abort":  # typer's name of Ctrl-C
            sys.exit(130)
        if not hasattr(error, "format_message"):  # no complaint about options
            raise
        print(f"gpunet: {' '.join(error.format_message().split())} See: gpunet --help", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
