"""MQTT 5: the connection that equipment and gateway use."""
