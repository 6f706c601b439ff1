"""Pictures of the methods' effects, and the runs that produce them."""
