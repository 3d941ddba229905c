"""What is shown and what is taken, apart: nothing can be written that is not named for it."""
