"""Attribution methods: one torch definition each, run by the teacher and traced into the engine."""
