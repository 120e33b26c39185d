"""The time series: their schema, their ingest, and queries on them."""
