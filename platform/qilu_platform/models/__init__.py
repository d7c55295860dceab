"""Models of the API: types of fields, bodies, answers."""
