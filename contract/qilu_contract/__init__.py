"""What the parts agree on: topics, payloads, equipment catalogue, storage schema. Imports nothing else of
ours.
"""
