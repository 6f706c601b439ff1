"""What the tools share: configs, checkpoints and processes, checked before they are used."""
