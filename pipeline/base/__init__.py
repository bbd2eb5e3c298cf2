"""What every other room stands on; imports only the standard library at load time, charts NumPy."""
