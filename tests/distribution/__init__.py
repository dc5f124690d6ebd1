"""`make dist`: the wheel and the source archive, and what a new user does with them."""
