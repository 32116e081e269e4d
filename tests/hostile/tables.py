"""Cases of this family."""
