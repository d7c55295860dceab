"""Decoding of messages into readings: births, and decoding by column or one message at a time."""
