"""``python -m postclick`` is the command line."""

from postclick.cli.main import main

if __name__ == "__main__":
    main()
