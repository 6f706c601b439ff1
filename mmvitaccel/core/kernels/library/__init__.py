"""Loading the compiled kernels: prebuilt for some processors, or compiled locally."""
