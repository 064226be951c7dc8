"""Hypercorn's Trio worker, made safe."""
