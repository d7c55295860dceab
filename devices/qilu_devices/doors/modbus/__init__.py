"""Modbus TCP server of simulated equipment (extra `modbus`)."""
