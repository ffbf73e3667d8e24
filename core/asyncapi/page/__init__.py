"""The AsyncAPI document as one HTML page, for people."""
