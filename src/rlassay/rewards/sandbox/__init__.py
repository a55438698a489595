"""Rewards in a process of their own: nothing that they do reaches the job."""
