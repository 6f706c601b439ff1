"""One set of weights in several formats: accuracy, time and memory of each."""
