"""The completion browser: every completion of every policy on one prompt, side by side, read from files in pages."""
