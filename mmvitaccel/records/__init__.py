"""What a benchmark measured: the rows, the command and the machine, kept in the repository."""
