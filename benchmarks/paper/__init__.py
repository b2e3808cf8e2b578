"""The evaluation of Park et al. 2020 for our compression: maps against masks, and maps against the teacher's."""
