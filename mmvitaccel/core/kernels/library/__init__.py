"""Where the compiled kernels come from: made ahead for some processors, or compiled here."""
