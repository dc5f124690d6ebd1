"""Which method and which route is answered by whom, and what stands around each of them."""
