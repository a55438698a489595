"""The completion browser: completions of all policies on one prompt, side by side.

Its data are in pages.
"""
