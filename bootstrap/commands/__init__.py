"""The commands of `python main.py`, each in a file of its own."""
