"""Host side: what a person reads about a build: the report, its numbers as JSON, and pictures of maps over images."""
