"""Ring 1: engines that answer logits and attribution. One module a runtime; importing this loads none of them."""
