"""Ring 1, stage: the very engine that ships answers the golden set, and its maps are scored against the teacher's."""
