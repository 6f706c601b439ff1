"""How each family of vision transformers is described to the core: torch and core only."""
