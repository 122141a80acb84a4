"""Jobs: index images, and the command-line's own queries."""
