"""Routes as they are run, the tree that finds them, and the subscriptions that are made for them."""
