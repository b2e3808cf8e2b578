"""Distillation: students of another shape, and the loss that lets them learn the teacher's answers."""
