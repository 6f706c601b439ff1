"""Gates, their policies, and the selections that they make (section 4.1)."""
