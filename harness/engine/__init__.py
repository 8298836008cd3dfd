"""The run: data, samples, keys, records, measures."""
