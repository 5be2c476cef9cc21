"""Classical vision: filters made by hand, before filters were learned."""
