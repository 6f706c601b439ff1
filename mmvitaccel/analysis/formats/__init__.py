"""One set of weights in several formats: what each computes, and how fast."""
