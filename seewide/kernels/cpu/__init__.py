"""Plain torch calls that reach the fast library paths of a CPU."""
