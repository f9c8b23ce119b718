"""Studies: experiments over many scores, each with its figure and table."""
