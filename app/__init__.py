"""Your application: controllers, models, routers and middleware."""
