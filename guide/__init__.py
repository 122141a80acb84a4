"""What makes the documentation: the site, and the list of licences."""
