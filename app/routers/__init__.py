"""Your routers."""
