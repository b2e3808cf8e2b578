"""Matching losses: what holds the student's map to the teacher's."""
