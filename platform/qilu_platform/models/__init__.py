"""What the API takes and shows: types of fields, bodies, answers."""
