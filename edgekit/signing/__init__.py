"""Ring 1: keys, signatures, envelopes and statements: what is said of a bundle, in a form that others can verify."""
