"""The contract between the parts: topics, payloads, equipment catalogue, storage schema. Imports none of our
other packages.
"""
