"""What every other room stands on; imports nothing outside the standard library at load time."""
