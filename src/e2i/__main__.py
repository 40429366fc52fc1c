"""`e2i` and `python -m e2i`."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run a command. Its imports are inside, so that Ctrl-C in the first second ends it as it does later."""
    try:
        from e2i.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
