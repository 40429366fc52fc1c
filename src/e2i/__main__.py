"""`python -m e2i`."""

from e2i.cli.main import main

if __name__ == "__main__":
    main()
