"""Admission: whose readings are accepted, as the platform says."""
