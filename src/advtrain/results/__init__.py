"""Results: the schema of the Parquet files, their stamps, and the refusal of mixed ones."""
