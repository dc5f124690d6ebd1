"""Two versions of a model on the same rows: what differs, and whether the gate lets the newer one through.

versions     where the versions lie, and their settings
task         run(...): both are loaded in one subprocess, answer the rows, and are timed in turns
worker       the program of that subprocess
measures     accuracy, agreement, cosine, differences: pure
judge        what of it the gate does not let through: pure
text         the table, and the JSON
page         the HTML report, with its plots
"""
