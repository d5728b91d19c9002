"""What the user decides: parameters, rules, jobs."""
