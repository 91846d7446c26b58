"""What is kept how long: decisions first, then the removals among them."""
