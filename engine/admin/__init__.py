"""`dataops-admin`: what an operator does beside the running service."""
