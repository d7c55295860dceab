"""Files and lines of many things, checked and registered."""
