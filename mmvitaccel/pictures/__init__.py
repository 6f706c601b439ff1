"""Pictures of what the methods do, and the runs that make them."""
