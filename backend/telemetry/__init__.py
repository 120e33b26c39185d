"""The time series: their schema, their intake, and the questions asked of them."""
