"""The completion browser: completions of all policies on one prompt, side by side, in pages of data."""
