"""Which rounding moved the map, tensor by tensor, and at which hop from teacher to engine the map was lost."""
