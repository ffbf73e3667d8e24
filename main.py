"""RouteMQ's worker and its commands. `python main.py --help` lists them."""

from bootstrap.cli import main

if __name__ == "__main__":
    main()
