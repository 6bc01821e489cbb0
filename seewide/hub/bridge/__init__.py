"""Files that travel with pushed weights, for other libraries."""
