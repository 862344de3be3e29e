"""Detectors behind one protocol, and the service that shares one."""
