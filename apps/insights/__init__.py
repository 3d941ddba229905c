"""What can be read off the platform: its figures, for programs that watch it."""
