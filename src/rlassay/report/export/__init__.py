"""Files for papers and further work: LaTeX tables, and the data behind each figure."""
