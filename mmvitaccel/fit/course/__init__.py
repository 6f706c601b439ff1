"""The course of a training: loops and samplers, hooks with a time, and what a resumed one keeps."""
