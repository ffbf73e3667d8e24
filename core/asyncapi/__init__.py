"""AsyncAPI: the routes as a document that people and programs can read."""
