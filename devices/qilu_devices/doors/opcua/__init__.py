"""OPC UA server of simulated equipment (extra `opcua`)."""
