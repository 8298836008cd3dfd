"""Result files: what a run found, as one file that others can read, check and compare."""
