"""Routes as they are run: the tree that finds them, and what is subscribed for them."""
