"""Weight files and the networks they hold."""
