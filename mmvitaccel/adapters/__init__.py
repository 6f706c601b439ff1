"""Descriptions of vision transformer families for the core; imports only torch and core."""
