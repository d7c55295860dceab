"""Admission: accepts readings of registered units only, according to the platform."""
