"""A page that shows a network live: its outputs, and how each input moves each of them."""
