"""Model families, heads, attention, and the folders they are stored in.

layers, attention, initial and heads know no model: families are made of them (see families/base.py).
"""
