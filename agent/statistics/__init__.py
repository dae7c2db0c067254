"""How many parts had which verdict, and why, over hours, shifts and days: what outlives the minute."""
