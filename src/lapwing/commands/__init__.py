"""One module for each group of subcommands: flags in, a few lines out."""
