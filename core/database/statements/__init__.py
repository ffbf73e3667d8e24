"""Gathered statements: many calls that wait at the same moment go to the database as one."""
