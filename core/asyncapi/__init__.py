"""AsyncAPI: the routes of an application as a document that people and programs can read."""
