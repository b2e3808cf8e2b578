"""Ring 1: what a device does for a release that its host could only prepare: the plan, the work, the evidence."""
