"""The jobs that users choose a data tool by, each beside its physical limit and its peers."""
