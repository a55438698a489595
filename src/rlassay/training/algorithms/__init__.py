"""Optional trainer parts, one module each: critic, KL control, guards, dynamic sampling and replay."""
