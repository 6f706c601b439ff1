"""Settings of a config that the command line overrides."""
