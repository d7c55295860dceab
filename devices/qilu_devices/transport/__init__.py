"""Transport faults: disturbances of readings between equipment and broker."""
