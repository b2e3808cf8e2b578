"""Ring 2, stage: a smaller network whose maps still match the teacher's."""
