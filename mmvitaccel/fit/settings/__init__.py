"""Single settings of a config that are read late, or whose wrong value goes unnoticed."""
