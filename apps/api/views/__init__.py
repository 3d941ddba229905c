"""The resources. Each method is an operation, and calls the selectors and services of the rooms."""
