"""How we know that numbers are right and what they cost."""
