"""The admin site itself: navigation, overview, the new-sync wizard, the command line."""
