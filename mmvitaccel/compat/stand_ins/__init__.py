"""Source files that are executed under the names of missing modules; not to be imported here."""
