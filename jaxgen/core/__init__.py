"""What everything stands on: array types, pytrees, errors, the compile cache, atomic writes."""
