"""The equipment catalogue and the places and targets of the programme, as data."""
