"""What train and test share: configs, checkpoints and processes, checked before they are used."""
