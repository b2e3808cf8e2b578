"""Ring 2: the precision budget: which operations may be INT8 while a policy holds, and what that saves."""
