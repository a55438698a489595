"""rlassay: which ingredient of a reinforcement-learning recipe helps, and how sure can we be?"""
