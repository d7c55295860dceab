"""Data assets: identifiers, data sets and their quality, data products, asset administration shells."""
