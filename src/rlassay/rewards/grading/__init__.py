"""Parse and compare answers: equality, quantities and the replies of judges."""
