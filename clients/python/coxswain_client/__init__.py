"""A typed client of a Coxswain server."""
