"""The statements that Model's calls become. Calls that wait at the same moment are gathered into one statement."""
