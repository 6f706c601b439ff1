"""ToMe on a model: attachment and block steps."""
